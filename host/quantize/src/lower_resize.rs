//! Lowering of Resize and Upsample: where each pixel of the result lies in the input.

use graft_bundle::graph::POSITION_ONE;
use tract_onnx::pb::NodeProto;

use crate::attributes::{axis, int, ints, string};
use crate::float_graph::FloatOp;
use crate::lower::{Lowering, Reason};
use crate::onnx_file::node_name;

impl Lowering<'_> {
    /// Resize and Upsample of height and width: blocks of equal pixels, or interpolation at fixed places.
    pub(crate) fn resize(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let data = self.solid_input(node, 0)?;
        let before = data.view.shape();
        let output = node.output.first().and_then(|o| self.known.get(o));
        let after = output.map(|k| k.shape.clone()).ok_or("its size is not known")?;
        let layout = self.layout_of(&data.view)?;
        let is_side = |a: &usize| layout.h.contains(a) || layout.w.contains(a);
        if (0..before.len()).any(|a| !is_side(&a) && before[a] != after[a]) {
            return Err(format!("it resizes {before:?} to {after:?}; height and width are supported"));
        }
        let scales = self.scales(node, before.len());
        let along = |axes: &[usize]| -> Result<Vec<u32>, Reason> {
            let Some(a) = axes.first() else { return Ok(vec![0]) };
            let scale = scales.as_ref().and_then(|s| s.get(*a)).copied();
            positions(node, before[*a], after[*a], scale.unwrap_or(after[*a] as f32 / before[*a] as f32))
        };
        let [rows, columns] = [along(&layout.h)?, along(&layout.w)?];
        let [h, w, c] = self.sizes(&data.view, &layout);
        let input = self.in_memory(&data, &layout, &node_name(node))?;
        let shape = [rows.len(), columns.len(), c];
        let view = self.view_of(before.len(), shape, &layout);
        let op = match [blocks(&rows, h), blocks(&columns, w)] {
            [Some(rows), Some(columns)] => FloatOp::Upsample([rows, columns]),
            _ => FloatOp::Resize([rows, columns]),
        };
        self.emit(node, op, vec![input], shape, view);
        Ok(())
    }

    /// The scales that a Resize or Upsample states, one per axis.
    fn scales(&self, node: &NodeProto, rank: usize) -> Option<Vec<f32>> {
        let (_, stated) = self.floats(node, if node.input.len() == 2 { 1 } else { 2 })?;
        let axes: Vec<usize> = match ints(node, "axes") {
            Some(axes) => axes.iter().filter_map(|a| axis(*a, rank)).collect(),
            None => (0..rank).collect(),
        };
        let mut scales = vec![1.0; rank];
        for (a, scale) in axes.iter().zip(&stated) {
            scales[*a] = *scale;
        }
        (stated.len() == axes.len()).then_some(scales)
    }
}

/// Where `after` pixels lie among `before`, times [`POSITION_ONE`].
fn positions(node: &NodeProto, before: usize, after: usize, scale: f32) -> Result<Vec<u32>, Reason> {
    // As Upsample was, and Resize of opset 10.
    let old = node.op_type == "Upsample" || node.input.len() == 2;
    let [transformation, rounding] = if old {
        ["asymmetric", "floor"].map(String::from)
    } else {
        [("coordinate_transformation_mode", "half_pixel"), ("nearest_mode", "round_prefer_floor")]
            .map(|(name, otherwise)| string(node, name, otherwise))
    };
    let mode = string(node, "mode", "nearest");
    // In f32, as runtimes do: at a whole place the rounding decides which pixel it is.
    let (from, to) = (before as f32, after as f32);
    if old && mode == "nearest" && scale < 1.0 {
        return Err("it makes smaller by nearest pixels of opset 10, on which runtimes differ".into());
    }
    if int(node, "antialias", 0) != 0 && scale < 1.0 {
        return Err("it filters what it makes smaller".into());
    }
    let policy = string(node, "keep_aspect_ratio_policy", "stretch");
    if policy != "stretch" {
        return Err(format!("it keeps the aspect ratio ({policy})"));
    }
    let place = |i: f32| -> Result<f32, Reason> {
        Ok(match &transformation[..] {
            "asymmetric" => i / scale,
            "half_pixel" => (i + 0.5) / scale - 0.5,
            "pytorch_half_pixel" if after > 1 => (i + 0.5) / scale - 0.5,
            "pytorch_half_pixel" => 0.0,
            "half_pixel_symmetric" => {
                // Centred where the size is not what the scale makes it.
                let adjusted = to / (scale * from);
                from / 2.0 * (1.0 - adjusted) + (i + 0.5) / scale - 0.5
            }
            "align_corners" if after > 1 => i * (from - 1.0) / (to - 1.0),
            "align_corners" => 0.0,
            other => return Err(format!("it places pixels by {other}")),
        })
    };
    let settle = |place: f32| -> Result<f32, Reason> {
        Ok(match (&mode[..], &rounding[..]) {
            ("linear" | "bilinear", _) => place,
            ("nearest", "floor") => place.floor(),
            ("nearest", "ceil") => place.ceil(),
            ("nearest", "round_prefer_floor") if place.fract() == 0.5 => place.floor(),
            ("nearest", "round_prefer_floor" | "round_prefer_ceil") => place.round(),
            ("nearest", other) => return Err(format!("it rounds by {other}")),
            (other, _) => return Err(format!("it interpolates by {other}; nearest and linear are supported")),
        })
    };
    (0..after)
        .map(|i| {
            let inside = settle(place(i as f32)?)?.clamp(0.0, from - 1.0);
            Ok((inside * POSITION_ONE as f32).round_ties_even() as u32)
        })
        .collect()
}

/// Largest factor of an Upsample.
const UPSAMPLE_MAX: u32 = 4096;

/// By which whole factor each of `n` pixels becomes a block of equal ones, if it does.
fn blocks(positions: &[u32], n: usize) -> Option<u32> {
    let factor = positions.len() / n.max(1);
    let is_block = |(i, position): (usize, &u32)| *position as usize == i / factor.max(1) * POSITION_ONE as usize;
    let whole = factor > 0 && positions.len() == factor * n && positions.iter().enumerate().all(is_block);
    whole.then_some(factor as u32).filter(|factor| *factor <= UPSAMPLE_MAX)
}
