//! Running the network on tiles: by [`super::engine`], or by tract if the engine does not know
//! the network.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::engine::{Engine, Planes, Workspace, read_onnx};
use super::instances::Maps;
use super::normalise::Span as GreySpan;
use super::tile::{Grid, Span};
use super::with_tract::WithTract;
use crate::domain::frame::Frame;

/// Maps the network gives. Each comes as sub-pixels: channel `n² · map + n · dy + dx` of an
/// output of 1/n of the tile's height and width. Foreground, distance and contact; then sizes,
/// which networks made before there was that map do not give.
const MAPS: std::ops::RangeInclusive<usize> = 3..=4;

/// The network cannot be prepared or run.
#[derive(Debug, thiserror::Error)]
#[error("the network: {doing}: {reason}; the model package does not fit this program")]
pub struct NetworkError {
    doing: &'static str,
    reason: String,
}

impl NetworkError {
    pub(super) fn new(doing: &'static str, error: &impl std::fmt::Debug) -> Self {
        Self { doing, reason: format!("{error:?}") }
    }
}

/// A network ready to run.
pub struct Network {
    runner: Runner,
    /// How many of [`MAPS`] it gives.
    maps: usize,
}

enum Runner {
    Ours {
        engine: Engine,
        /// Not in use now. There are as many as tiles were ever run at the same time.
        idle: Mutex<Idle>,
    },
    Tract(WithTract),
}

/// Workspaces for tiles of one edge: frames of other sizes seldom mix.
#[derive(Default)]
struct Idle {
    edge: usize,
    workspaces: Vec<Workspace>,
}

impl Network {
    /// Reads a network from ONNX and runs it once, so that a wrong file is known now.
    ///
    /// # Errors
    /// When it is not ONNX, or does not take `[1,1,H,W]` to maps (see [`MAPS`]).
    pub fn new(onnx: Vec<u8>) -> Result<Self, NetworkError> {
        let engine = read_onnx(&onnx)
            .map_err(|error| error.to_string())
            .and_then(|graph| Engine::new(&graph).map_err(|error| error.to_string()));
        let runner = match engine {
            Ok(engine) => Runner::Ours { engine, idle: Mutex::default() },
            Err(reason) => {
                tracing::warn!(%reason, "the network will run several times slower than it could");
                Runner::Tract(WithTract::new(onnx))
            }
        };
        let mut network = Self { runner, maps: 0 };
        let edge = Grid::for_frame(1, 1).edge;
        network.maps = network.tile(edge, |image| image.fill(0.0), |output| output.maps)?;
        Ok(network)
    }

    /// Runs every tile of `frame` and puts the maps together. Tiles run side by side in the
    /// current rayon pool; the result does not depend on how many do.
    ///
    /// # Errors
    /// When the network does not give the maps.
    pub fn run(&self, frame: &Frame, grey: GreySpan, maps: &mut Maps) -> Result<(), NetworkError> {
        let (width, height) = (frame.width as usize, frame.height as usize);
        let grid = Grid::for_frame(width, height);
        maps.width = width;
        maps.height = height;
        for map in [&mut maps.foreground, &mut maps.distance, &mut maps.contact] {
            map.resize(width * height, 0.0);
        }
        maps.size.resize(if self.maps == *MAPS.end() { width * height } else { 0 }, 0.0);
        // Writing a tile's maps takes a twentieth of what computing them does, so that
        // threads seldom wait for each other.
        let maps = Mutex::new(maps);
        grid.tiles().par_iter().try_for_each(|&(row, column)| {
            self.tile(
                grid.edge,
                |image| cut(frame, grey, grid.edge, row, column, image),
                |output| {
                    let mut maps = maps.lock().unwrap_or_else(PoisonError::into_inner);
                    output.put(row, column, &mut maps);
                },
            )
        })
    }

    /// Runs one tile of `edge × edge` that `fill` writes; `read` gets what comes out.
    fn tile<T>(
        &self,
        edge: usize,
        fill: impl FnOnce(&mut [f32]),
        read: impl FnOnce(Output<'_>) -> T,
    ) -> Result<T, NetworkError> {
        match &self.runner {
            Runner::Ours { engine, idle } => {
                let lock = || idle.lock().unwrap_or_else(PoisonError::into_inner);
                let waiting = {
                    let mut idle = lock();
                    if idle.edge != edge {
                        *idle = Idle { edge, workspaces: vec![] };
                    }
                    idle.workspaces.pop()
                };
                let mut workspace = match waiting {
                    Some(workspace) => workspace,
                    None => engine
                        .workspace(edge, edge)
                        .map_err(|error| NetworkError::new("cannot run it", &error))?,
                };
                fill(workspace.image_mut());
                let planes = engine.run(&mut workspace);
                let shape = planes.shape();
                let shape = [shape.channels, shape.height, shape.width];
                let read = read(Output::new(Values::Blocks(planes), shape, edge)?);
                let mut idle = lock();
                if idle.edge == edge {
                    idle.workspaces.push(workspace);
                }
                Ok(read)
            }
            Runner::Tract(tract) => {
                let mut image = vec![0.0; edge * edge];
                fill(&mut image);
                let (values, shape) = tract.run(&image, edge)?;
                let values = Values::Plain { values: &values, edge: shape[2] };
                Ok(read(Output::new(values, shape, edge)?))
            }
        }
    }
}

/// What the network gave for one tile.
struct Output<'a> {
    values: Values<'a>,
    /// How many of [`MAPS`].
    maps: usize,
    /// Sub-pixels along an edge of one output pixel.
    fine: usize,
}

enum Values<'a> {
    Blocks(&'a Planes),
    /// `[channel][y][x]`, with `edge` columns and rows.
    Plain {
        values: &'a [f32],
        edge: usize,
    },
}

impl<'a> Output<'a> {
    /// Takes `values` of `shape` (channels, rows, columns) for what they are for a tile of `edge`.
    fn new(values: Values<'a>, shape: [usize; 3], edge: usize) -> Result<Self, NetworkError> {
        let [channels, height, width] = shape;
        let fine = (edge / width.max(1)).max(1);
        let maps = channels / fine.pow(2);
        if MAPS.contains(&maps) && shape == [maps * fine * fine, edge / fine, edge / fine] {
            return Ok(Self { values, maps, fine });
        }
        let given = format!("{channels} channels of {height}×{width} for a tile of {edge}");
        Err(NetworkError::new("cannot use its output", &given))
    }

    /// Writes the part of the maps that the tile answers for, sub-pixels to their places.
    fn put(&self, row: Span, column: Span, maps: &mut Maps) {
        let fine = self.fine;
        let width = maps.width;
        let columns = column.from - column.start..column.to - column.start;
        let planes = [&mut maps.foreground, &mut maps.distance, &mut maps.contact, &mut maps.size];
        for (map, plane) in planes.into_iter().enumerate().take(self.maps) {
            for y in row.from..row.to {
                let (coarse_y, dy) = ((y - row.start) / fine, (y - row.start) % fine);
                let channel = fine * (fine * map + dy);
                let out = &mut plane[y * width + column.from..y * width + column.to];
                // One sub-pixel column at a time: no division for each pixel.
                for dx in 0..fine {
                    let first = (dx + fine - columns.start % fine) % fine;
                    let coarse_x = (columns.start + first) / fine;
                    let out = out.iter_mut().skip(first).step_by(fine);
                    let channel = channel + dx;
                    match self.values {
                        Values::Blocks(planes) => {
                            let line = &planes.row(channel / 16, coarse_y)[coarse_x..];
                            for (out, block) in out.zip(line) {
                                *out = block.0[channel % 16];
                            }
                        }
                        Values::Plain { values, edge } => {
                            let line = &values[(channel * edge + coarse_y) * edge..][..edge];
                            for (out, value) in out.zip(&line[coarse_x..]) {
                                *out = *value;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Normalised pixels of one tile. Beyond the frame, its last row and column are repeated.
fn cut(frame: &Frame, grey: GreySpan, edge: usize, row: Span, column: Span, tile: &mut [f32]) {
    let (width, height) = (frame.width as usize, frame.height as usize);
    let inside = edge.min(width - column.start);
    for (y, line) in (row.start..).zip(tile.chunks_exact_mut(edge)) {
        let start = y.min(height - 1) * width + column.start;
        let (pixels, missing) = line.split_at_mut(inside);
        for (at, pixel) in (start..).zip(pixels.iter_mut()) {
            *pixel = grey.apply(frame.pixels.get(at));
        }
        missing.fill(pixels[inside - 1]);
    }
}
