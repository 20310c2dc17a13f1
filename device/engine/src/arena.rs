//! Memory of the activations: planned once from the tensors' lifetimes, then reused by every inference.
//!
//! One buffer per element type, so that typed slices need no cast. A tensor lies where no other tensor of its type
//! lies during its lifetime; the largest are placed first, each at the lowest offset that is free (greedy by size,
//! Pisarchyk & Lee 2020, arXiv:2001.03288).

use graft_bundle::DataType;
use graft_kernels::packed::Line;
use graft_kernels::{View, ViewMut};

/// Alignment of every tensor within its buffer.
const ALIGN_BYTES: usize = 64;

/// A tensor to be placed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    pub data_type: DataType,
    pub len: usize,
    /// First and last step during which it must stay.
    pub steps: [usize; 2],
}

/// Where a tensor lies: elements of the buffer of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub data_type: DataType,
    pub offset: usize,
    pub len: usize,
}

/// Places of all tensors and the lengths of the buffers.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub places: Vec<Place>,
    lens: [usize; 4],
}

impl Plan {
    pub(crate) fn new(lifetimes: &[Lifetime]) -> Self {
        let mut order: Vec<usize> = (0..lifetimes.len()).collect();
        order.sort_by_key(|i| core::cmp::Reverse(lifetimes.get(*i).map_or(0, |l| l.len)));
        let mut places: Vec<Option<Place>> = vec![None; lifetimes.len()];
        let mut lens = [0; 4];
        for i in order {
            let Some(lifetime) = lifetimes.get(i) else { continue };
            let meets = |other: &Lifetime| {
                other.data_type == lifetime.data_type
                    && other.steps[0] <= lifetime.steps[1]
                    && lifetime.steps[0] <= other.steps[1]
            };
            let mut taken: Vec<[usize; 2]> = (lifetimes.iter().zip(&places))
                .filter_map(|(other, place)| place.filter(|_| meets(other)))
                .map(|place| [place.offset, place.offset + place.len])
                .collect();
            taken.sort_unstable();
            let align = ALIGN_BYTES / lifetime.data_type.bytes() as usize;
            let mut offset: usize = 0;
            for [start, end] in taken {
                if offset + lifetime.len <= start {
                    break;
                }
                offset = offset.max(end.next_multiple_of(align));
            }
            if let (Some(place), Some(len)) = (places.get_mut(i), lens.get_mut(slot(lifetime.data_type))) {
                *place = Some(Place { data_type: lifetime.data_type, offset, len: lifetime.len });
                *len = (*len).max(offset + lifetime.len);
            }
        }
        Self { places: places.into_iter().flatten().collect(), lens }
    }

    /// Bytes of all buffers.
    pub(crate) fn bytes(&self) -> u64 {
        let [i8, i16, i32, f32] = self.lens.map(|len| len as u64);
        i8 + 2 * i16 + 4 * i32 + 4 * f32
    }
}

fn slot(data_type: DataType) -> usize {
    match data_type {
        DataType::I8 => 0,
        DataType::I16 => 1,
        DataType::I32 => 2,
        DataType::F32 => 3,
    }
}

/// The buffers.
#[derive(Clone)]
pub(crate) struct Arena {
    /// Of `i8_len` values; in lines, as vectors that lie across two of them cost twice.
    i8: Vec<Line>,
    i8_len: usize,
    i16: Vec<i16>,
    i32: Vec<i32>,
    f32: Vec<f32>,
}

/// All of the buffers but one tensor.
pub(crate) struct Rest<'a> {
    i8: Halves<'a, i8>,
    i16: Halves<'a, i16>,
    i32: Halves<'a, i32>,
    f32: Halves<'a, f32>,
}

/// What lies before and after the tensor that is being written.
struct Halves<'a, T> {
    before: &'a [T],
    after: &'a [T],
    after_start: usize,
}

impl<'a, T> Halves<'a, T> {
    fn whole(buffer: &'a [T]) -> Self {
        Self { before: buffer, after: &[], after_start: buffer.len() }
    }

    fn around(buffer: &'a mut [T], place: Place) -> Option<(Self, &'a mut [T])> {
        let (before, rest) = buffer.split_at_mut_checked(place.offset)?;
        let (tensor, after) = rest.split_at_mut_checked(place.len)?;
        Some((Self { before, after, after_start: place.offset + place.len }, tensor))
    }

    fn get(&self, place: Place) -> Option<&'a [T]> {
        let (half, offset) = match place.offset.checked_sub(self.after_start) {
            Some(offset) => (self.after, offset),
            None => (self.before, place.offset),
        };
        half.get(offset..)?.get(..place.len)
    }
}

impl Arena {
    pub(crate) fn new(plan: &Plan) -> Self {
        let [i8, i16, i32, f32] = plan.lens;
        let lines = vec![Line::ZERO; i8.div_ceil(size_of::<Line>())];
        Self { i8: lines, i8_len: i8, i16: vec![0; i16], i32: vec![0; i32], f32: vec![0.0; f32] }
    }

    /// One tensor to be written, all others to be read.
    pub(crate) fn split(&mut self, place: Place) -> Option<(Rest<'_>, ViewMut<'_>)> {
        let Self { i8, i8_len, i16, i32, f32 } = self;
        let i8 = Line::values_mut(i8).get_mut(..*i8_len)?;
        macro_rules! around {
            ($own:ident $variant:ident, $($other:ident)*) => {{
                let ($own, tensor) = Halves::around($own, place)?;
                $(let $other = Halves::whole($other);)*
                (Rest { $own, $($other,)* }, ViewMut::$variant(tensor))
            }};
        }
        Some(match place.data_type {
            DataType::I8 => around!(i8 I8, i16 i32 f32),
            DataType::I16 => around!(i16 I16, i8 i32 f32),
            DataType::I32 => around!(i32 I32, i8 i16 f32),
            DataType::F32 => around!(f32 F32, i8 i16 i32),
        })
    }

    /// One tensor to be read.
    pub(crate) fn view(&self, place: Place) -> Option<View<'_>> {
        let range = place.offset..place.offset.checked_add(place.len)?;
        Some(match place.data_type {
            DataType::I8 => View::I8(Line::values(&self.i8).get(..self.i8_len)?.get(range)?),
            DataType::I16 => View::I16(self.i16.get(range)?),
            DataType::I32 => View::I32(self.i32.get(range)?),
            DataType::F32 => View::F32(self.f32.get(range)?),
        })
    }
}

impl<'a> Rest<'a> {
    /// A tensor that does not meet the one being written.
    pub(crate) fn view(&self, place: Place) -> Option<View<'a>> {
        Some(match place.data_type {
            DataType::I8 => View::I8(self.i8.get(place)?),
            DataType::I16 => View::I16(self.i16.get(place)?),
            DataType::I32 => View::I32(self.i32.get(place)?),
            DataType::F32 => View::F32(self.f32.get(place)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lifetime(data_type: DataType, len: usize, steps: [usize; 2]) -> Lifetime {
        Lifetime { data_type, len, steps }
    }

    #[test]
    fn tensors_that_never_meet_share_their_place() {
        use DataType::{I8, I16};
        let plan = Plan::new(&[lifetime(I8, 100, [0, 0]), lifetime(I8, 50, [0, 1]), lifetime(I8, 100, [1, 2])]);
        assert_eq!(plan.places.iter().map(|p| p.offset).collect::<Vec<_>>(), [0, 128, 0]);
        assert_eq!(plan.bytes(), 178);
        let plan = Plan::new(&[lifetime(I8, 100, [0, 0]), lifetime(I16, 50, [0, 1])]);
        assert_eq!(plan.places.iter().map(|p| p.offset).collect::<Vec<_>>(), [0, 0], "each type has its buffer");
    }

    #[test]
    fn the_written_tensor_is_apart_from_the_rest() {
        let plan = Plan::new(&[lifetime(DataType::I8, 3, [0, 1]), lifetime(DataType::I8, 2, [0, 1])]);
        let mut arena = Arena::new(&plan);
        let [a, b] = plan.places[..] else { panic!() };
        let (rest, out) = arena.split(b).unwrap();
        assert_eq!(out.len(), 2);
        assert_eq!(rest.view(a).unwrap().len(), 3);
        assert!(rest.view(b).is_none(), "what is written cannot be read");
        assert!(arena.split(Place { offset: 65, ..b }).is_none(), "outside");
    }

    proptest! {
        #[test]
        fn tensors_that_meet_do_not_overlap(
            drawn in prop::collection::vec((0..4usize, 1usize..500, 0usize..12, 0usize..6), 1..40),
        ) {
            let types = [DataType::I8, DataType::I16, DataType::I32, DataType::F32];
            let lifetimes: Vec<Lifetime> =
                drawn.iter().map(|(t, len, first, n)| lifetime(types[*t], *len, [*first, first + n])).collect();
            let plan = Plan::new(&lifetimes);
            let arena = Arena::new(&plan);
            prop_assert_eq!(plan.places.len(), lifetimes.len());
            for (i, a) in plan.places.iter().enumerate() {
                prop_assert!(arena.view(*a).is_some());
                prop_assert_eq!(a.offset * a.data_type.bytes() as usize % ALIGN_BYTES, 0);
                for (j, b) in plan.places.iter().enumerate().skip(i + 1) {
                    let (x, y) = (lifetimes[i], lifetimes[j]);
                    let meet = x.steps[0] <= y.steps[1] && y.steps[0] <= x.steps[1] && a.data_type == b.data_type;
                    let apart = a.offset + a.len <= b.offset || b.offset + b.len <= a.offset;
                    prop_assert!(!meet || apart, "{} and {}", i, j);
                }
            }
        }
    }
}
