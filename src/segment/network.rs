//! Running the network on tiles, with tract.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use tract_onnx::prelude::{
    DatumType, Framework, InferenceModelExt, IntoRunnable, IntoTensor, TValue, Tensor,
    TypedSimplePlan, tvec,
};
use tract_onnx::tract_hir::infer::InferenceFact;

use super::instances::Maps;
use super::normalise::Span as GreySpan;
use super::tile::{Grid, Span};
use crate::domain::frame::Frame;

/// Maps the network gives; each comes as 2×2 sub-pixels.
const MAPS: usize = 3;

/// The network cannot be prepared or run.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {reason}; the model package does not fit this program")]
pub struct NetworkError {
    doing: &'static str,
    reason: String,
}

impl NetworkError {
    fn new(doing: &'static str, error: &impl std::fmt::Debug) -> Self {
        Self { doing, reason: format!("{error:?}") }
    }
}

type Plan = Arc<TypedSimplePlan>;

/// A network with a prepared plan for each tile size met so far.
pub struct Network {
    onnx: Vec<u8>,
    plans: Mutex<BTreeMap<usize, Plan>>,
}

impl Network {
    /// Reads a network from ONNX and prepares it once, so that a wrong file is known now.
    ///
    /// # Errors
    /// When it is not ONNX, or does not take `[1,1,H,W]` to `[1,12,H/2,W/2]`.
    pub fn new(onnx: Vec<u8>) -> Result<Self, NetworkError> {
        let network = Self { onnx, plans: Mutex::new(BTreeMap::new()) };
        network.plan(Grid::for_frame(1, 1).edge)?;
        Ok(network)
    }

    /// Runs every tile of `frame` and puts the maps together. Tiles run side by side in the
    /// current rayon pool; the result does not depend on how many do.
    ///
    /// # Errors
    /// When tract fails.
    pub fn run(&self, frame: &Frame, grey: GreySpan, maps: &mut Maps) -> Result<(), NetworkError> {
        let (width, height) = (frame.width as usize, frame.height as usize);
        let grid = Grid::for_frame(width, height);
        let plan = self.plan(grid.edge)?;
        maps.width = width;
        maps.height = height;
        for map in [&mut maps.foreground, &mut maps.distance, &mut maps.contact] {
            map.resize(width * height, 0.0);
        }
        // In waves, so that the outputs waiting to be put together stay few for huge frames.
        let wave = 4 * rayon::current_num_threads();
        for tiles in grid.tiles().chunks(wave) {
            let outputs: Vec<_> = tiles
                .par_iter()
                .map(|&(row, column)| {
                    let input = cut(frame, grey, grid.edge, row, column);
                    let input = Tensor::from_shape(&[1, 1, grid.edge, grid.edge], &input)
                        .map_err(|error| NetworkError::new("cannot make the input", &error))?;
                    plan.run(tvec![TValue::from(input.into_tensor())])
                        .map_err(|error| NetworkError::new("cannot run the network", &error))
                })
                .collect();
            for (&(row, column), output) in tiles.iter().zip(outputs) {
                let output = output?;
                let values = output[0]
                    .to_plain_array_view::<f32>()
                    .map_err(|error| NetworkError::new("cannot read the maps", &error))?;
                let values = values
                    .as_slice()
                    .ok_or_else(|| NetworkError::new("cannot read the maps", &"not contiguous"))?;
                put(values, grid.edge, row, column, maps);
            }
        }
        Ok(())
    }

    fn plan(&self, edge: usize) -> Result<Plan, NetworkError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get(&edge) {
            return Ok(Arc::clone(plan));
        }
        let plan = prepare(&self.onnx, edge)?;
        plans.insert(edge, Arc::clone(&plan));
        Ok(plan)
    }
}

/// One plan for one concrete tile size: with symbolic sizes tract takes twice as long.
fn prepare(onnx: &[u8], edge: usize) -> Result<Plan, NetworkError> {
    let doing = "cannot prepare the network";
    let plan = tract_onnx::onnx()
        .model_for_read(&mut Cursor::new(onnx))
        .and_then(|model| {
            model
                .with_input_fact(0, InferenceFact::dt_shape(DatumType::F32, [1, 1, edge, edge]))?
                .into_optimized()?
                .into_runnable()
        })
        .map_err(|error| NetworkError::new(doing, &error))?;
    let shape = plan
        .model()
        .output_fact(0)
        .map_err(|error| NetworkError::new(doing, &error))?
        .shape
        .as_concrete()
        .map(<[usize]>::to_vec);
    let expected = [1, 4 * MAPS, edge / 2, edge / 2];
    if shape.as_deref() != Some(&expected[..]) {
        return Err(NetworkError::new(
            doing,
            &format!("its output is {shape:?}, not {expected:?}"),
        ));
    }
    Ok(plan)
}

/// Normalised pixels of one tile. Beyond the frame, its last row and column are repeated.
fn cut(frame: &Frame, grey: GreySpan, edge: usize, row: Span, column: Span) -> Vec<f32> {
    let (width, height) = (frame.width as usize, frame.height as usize);
    let mut tile = Vec::with_capacity(edge * edge);
    for y in row.start..row.start + edge {
        let line = y.min(height - 1) * width;
        let inside = column.start..(column.start + edge).min(width);
        let missing = edge - inside.len();
        tile.extend(inside.map(|x| grey.apply(frame.pixels.get(line + x))));
        tile.extend(std::iter::repeat_n(tile[tile.len() - 1], missing));
    }
    tile
}

/// Writes the part of a tile's output that it answers for, sub-pixels to their places.
fn put(values: &[f32], edge: usize, row: Span, column: Span, maps: &mut Maps) {
    let half = edge / 2;
    let width = maps.width;
    let planes = [&mut maps.foreground, &mut maps.distance, &mut maps.contact];
    for (map, plane) in planes.into_iter().enumerate() {
        for y in row.from..row.to {
            let inner = y - row.start;
            let channel = 4 * map + 2 * (inner % 2);
            let line = |sub: usize| &values[((channel + sub) * half + inner / 2) * half..][..half];
            let (even, odd) = (line(0), line(1));
            let out = &mut plane[y * width + column.from..y * width + column.to];
            for (x, out) in (column.from - column.start..).zip(out) {
                *out = if x % 2 == 0 { even[x / 2] } else { odd[x / 2] };
            }
        }
    }
}
