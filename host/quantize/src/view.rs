//! An ONNX tensor as a way to look at one of ours.
//!
//! ONNX orders axes as the exporter liked (`[N, C, H, W]`, `[N, H, W, C]`, flattened, split into groups); our values
//! lie channels last without a batch. A [`View`] says how the one is found in the other, so that Reshape, Transpose,
//! Flatten, Squeeze and the like move no data: only an op that needs another memory order does.

/// How an ONNX tensor is found in a value's memory.
///
/// The memory is a row-major block of `factors`; each ONNX axis is a product of factors, major first. A factor is in
/// exactly one axis. An axis of length 1 has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Sizes in memory order, none of them 1.
    pub factors: Vec<usize>,
    /// Per ONNX axis, indices into `factors`.
    pub axes: Vec<Vec<usize>>,
}

impl View {
    /// Of memory `[sizes...]` whose part `i` is ONNX axis `axis_of[i]`, of a tensor of `rank` axes.
    pub fn new(rank: usize, sizes: &[usize], axis_of: &[usize]) -> View {
        let mut view = View { factors: vec![], axes: vec![vec![]; rank] };
        for (size, axis) in sizes.iter().zip(axis_of) {
            if *size != 1
                && let Some(axis) = view.axes.get_mut(*axis)
            {
                axis.push(view.factors.len());
                view.factors.push(*size);
            }
        }
        view.merged()
    }

    /// Lengths of the ONNX axes.
    pub fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| self.size(axis)).collect()
    }

    /// Product of some factors.
    fn size(&self, factors: &[usize]) -> usize {
        factors.iter().filter_map(|f| self.factors.get(*f)).product()
    }

    /// The view after an ONNX Reshape; None if a new axis would mix parts that do not divide.
    pub fn reshaped(&self, shape: &[usize]) -> Option<View> {
        // The sequence of factors as ONNX walks the tensor, split where the new axes demand it.
        let mut walk: Vec<(usize, usize)> = vec![]; // (memory factor, size)
        for factor in self.axes.iter().flatten() {
            walk.push((*factor, *self.factors.get(*factor)?));
        }
        walk.reverse();
        let mut parts: Vec<(usize, usize)> = vec![]; // walked parts, major first: (memory factor, size)
        let mut axes: Vec<Vec<usize>> = vec![]; // indices into parts
        for dim in shape {
            let (mut rest, mut axis) = (*dim, vec![]);
            while rest > 1 {
                let (factor, size) = walk.pop()?;
                if rest.is_multiple_of(size) {
                    axis.push(parts.len());
                    parts.push((factor, size));
                    rest /= size;
                } else if size.is_multiple_of(rest) {
                    axis.push(parts.len());
                    parts.push((factor, rest));
                    walk.push((factor, size / rest));
                    rest = 1;
                } else {
                    return None;
                }
            }
            axes.push(axis);
        }
        if !walk.is_empty() {
            return None;
        }
        // Parts of one factor were walked major first, which is also their memory order.
        let mut order: Vec<usize> = (0..parts.len()).collect();
        order.sort_by_key(|p| parts.get(*p).map(|(factor, _)| *factor));
        let factors = order.iter().filter_map(|p| parts.get(*p)).map(|(_, size)| *size).collect();
        let mut place = vec![0; parts.len()];
        for (at, part) in order.iter().enumerate() {
            place[*part] = at;
        }
        let axes = axes.into_iter().map(|axis| axis.into_iter().map(|p| place[p]).collect()).collect();
        Some(View { factors, axes }.merged())
    }

    /// The view after an ONNX Transpose: new axis `i` is old axis `perm[i]`.
    pub fn transposed(&self, perm: &[usize]) -> Option<View> {
        let axes = perm.iter().map(|axis| self.axes.get(*axis).cloned()).collect::<Option<Vec<_>>>()?;
        (axes.len() == self.axes.len()).then_some(View { factors: self.factors.clone(), axes }.merged())
    }

    /// Memory order of the ONNX elements: the value at memory position `i` is ONNX element `order[i]`.
    pub fn memory_order(&self) -> Vec<usize> {
        let mut onnx_stride = vec![1usize; self.factors.len()];
        let mut stride = 1;
        for factor in self.axes.iter().flatten().rev() {
            onnx_stride[*factor] = stride;
            stride *= self.factors[*factor];
        }
        let mut order = vec![0usize];
        for (size, stride) in self.factors.iter().zip(&onnx_stride) {
            let inner = order;
            order = Vec::with_capacity(inner.len() * size);
            for base in inner {
                order.extend((0..*size).map(|i| base + i * stride));
            }
        }
        order
    }

    /// Factors in the order in which `axes` are walked; None if another axis is longer than 1.
    pub fn walk(&self, axes: &[usize]) -> Option<Vec<usize>> {
        let walk: Vec<usize> = axes.iter().filter_map(|a| self.axes.get(*a)).flatten().copied().collect();
        (walk.len() == self.factors.len()).then_some(walk)
    }

    /// True if memory already lies in the order of a walk.
    pub fn is_memory_order(walk: &[usize]) -> bool {
        walk.iter().enumerate().all(|(i, f)| i == *f)
    }

    /// Runs of factors that stay together when memory is reordered to `walk`: sizes in memory order, and the
    /// permutation of runs that gives the new order.
    pub fn runs(&self, walk: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let mut runs: Vec<(usize, usize)> = vec![]; // (first factor, size), in the new order
        let mut last = None;
        for factor in walk {
            let size = self.factors.get(*factor).copied().unwrap_or(1);
            match runs.last_mut() {
                Some(run) if last == factor.checked_sub(1) && *factor > 0 => run.1 *= size,
                _ => runs.push((*factor, size)),
            }
            last = Some(*factor);
        }
        let mut in_memory: Vec<usize> = (0..runs.len()).collect();
        in_memory.sort_by_key(|r| runs[*r].0);
        let sizes = in_memory.iter().map(|r| runs[*r].1).collect();
        let permutation = (0..runs.len()).filter_map(|r| in_memory.iter().position(|m| *m == r)).collect();
        (sizes, permutation)
    }

    /// Drops factors of one element and joins neighbours that no axis tells apart, so that equal views are equal.
    fn merged(self) -> View {
        let mut next_in_axis = vec![None; self.factors.len()];
        for pair in self.axes.iter().flat_map(|axis| axis.windows(2)) {
            if let [a, b] = pair {
                next_in_axis[*a] = Some(*b);
            }
        }
        let mut factors: Vec<usize> = vec![];
        let mut new_index = vec![None; self.factors.len()];
        for (i, size) in self.factors.iter().enumerate() {
            let joins = i > 0 && next_in_axis[i - 1] == Some(i) && *size != 1 && self.factors[i - 1] != 1;
            if *size == 1 {
                continue;
            }
            match factors.last_mut() {
                Some(last) if joins => *last *= size,
                _ => {
                    new_index[i] = Some(factors.len());
                    factors.push(*size);
                }
            }
        }
        let axes = self.axes.iter().map(|axis| axis.iter().filter_map(|f| new_index[*f]).collect()).collect();
        View { factors, axes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[1, C, H, W]` found in `[H, W, C]`.
    fn nchw(c: usize, h: usize, w: usize) -> View {
        View::new(4, &[h, w, c], &[2, 3, 1])
    }

    #[test]
    fn transposing_to_channels_last_is_memory_order() {
        let view = nchw(3, 4, 5);
        assert_eq!(view.shape(), [1, 3, 4, 5]);
        let nhwc = view.transposed(&[0, 2, 3, 1]).unwrap();
        assert_eq!(nhwc.shape(), [1, 4, 5, 3]);
        assert!(View::is_memory_order(&nhwc.walk(&[1, 2, 3]).unwrap()));
        assert!(!View::is_memory_order(&view.walk(&[1, 2, 3]).unwrap()));
    }

    #[test]
    fn flattening_keeps_where_each_element_lies() {
        let flat = nchw(3, 2, 2).reshaped(&[1, 12]).unwrap();
        // Memory walks pixels, then channels; ONNX channels, then pixels.
        assert_eq!(flat.memory_order(), [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
    }

    #[test]
    fn a_pooled_vector_is_flat_without_moving() {
        let pooled = nchw(7, 1, 1);
        assert_eq!(pooled.reshaped(&[1, 7]).unwrap().memory_order(), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(pooled.reshaped(&[7]).unwrap().shape(), [7]);
    }

    #[test]
    fn a_channel_shuffle_is_one_transposition_of_three_runs() {
        let shuffled = nchw(6, 2, 2).reshaped(&[1, 2, 3, 2, 2]).unwrap();
        let shuffled = shuffled.transposed(&[0, 2, 1, 3, 4]).unwrap().reshaped(&[1, 6, 2, 2]).unwrap();
        let walk = shuffled.walk(&[2, 3, 1]).unwrap();
        assert_eq!(shuffled.runs(&walk), (vec![4, 2, 3], vec![0, 2, 1]));
    }

    #[test]
    fn shapes_that_do_not_divide_are_refused() {
        assert_eq!(nchw(6, 2, 2).reshaped(&[1, 4, 6]), None);
        assert_eq!(nchw(6, 2, 2).reshaped(&[1, 6, 2]), None);
        assert_eq!(nchw(6, 2, 2).reshaped(&[2, 24]), None);
    }

    #[test]
    fn there_and_back_is_the_same_view() {
        let view = nchw(6, 4, 5);
        assert_eq!(
            view.reshaped(&[1, 6, 20]).unwrap().reshaped(&[1, 6, 4, 5]).unwrap().memory_order(),
            view.memory_order()
        );
        assert_eq!(view.transposed(&[0, 2, 3, 1]).unwrap().transposed(&[0, 3, 1, 2]).unwrap(), view);
    }
}
