//! Running the network on tiles: by [`super::engine`], or by tract if the engine does not know
//! the network.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::engine::{Block, Engine, Planes, Shape, Workspace, read_onnx};
use super::instances::Maps;
use super::normalise::Span as GreySpan;
use super::tile::{Grid, Span};
use super::with_tract::WithTract;
use crate::domain::frame::{Frame, Pixels};

/// Maps the network gives. Each comes as sub-pixels: channel `n² · map + n · dy + dx` of an
/// output of 1/n of the tile's height and width, where n is 2 or 4.
const MAPS: usize = 3;

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
    /// When it is not ONNX, or does not take `[1,1,H,W]` to three maps (see [`MAPS`]).
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
        let network = Self { runner };
        let edge = Grid::for_frame(1, 1).edge;
        network.tile(edge, |image| image.fill(0.0), |_| ())?;
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
        // Writing a tile's maps takes a fiftieth of what computing them does, so that threads
        // seldom wait for each other.
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
    fn tile(
        &self,
        edge: usize,
        fill: impl FnOnce(&mut [f32]),
        read: impl FnOnce(Output<'_>),
    ) -> Result<(), NetworkError> {
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
                let image = workspace.image_mut();
                if image.len() != edge * edge {
                    let channels = image.len() / edge / edge;
                    let error = format!("it takes {channels} channels, not one");
                    return Err(NetworkError::new("cannot run it", &error));
                }
                fill(image);
                let planes = engine.run(&mut workspace);
                read(Output { planes, fine: fine(planes.shape(), edge)? });
                let mut idle = lock();
                if idle.edge == edge {
                    idle.workspaces.push(workspace);
                }
                Ok(())
            }
            Runner::Tract(tract) => {
                let mut image = vec![0.0; edge * edge];
                fill(&mut image);
                let planes = tract.run(&image, edge)?;
                read(Output { planes: &planes, fine: fine(planes.shape(), edge)? });
                Ok(())
            }
        }
    }
}

/// How many sub-pixels lie along an edge of one output pixel.
#[derive(Clone, Copy)]
enum Fine {
    Halves,
    Quarters,
}

fn fine(shape: Shape, edge: usize) -> Result<Fine, NetworkError> {
    let gives = |fine: usize| {
        let Shape { channels, height, width } = shape;
        (channels, fine * height, fine * width) == (MAPS * fine * fine, edge, edge)
    };
    if gives(2) {
        Ok(Fine::Halves)
    } else if gives(4) {
        Ok(Fine::Quarters)
    } else {
        Err(NetworkError::new("cannot use its output", &format!("{shape:?} for a tile of {edge}")))
    }
}

/// What the network gave for one tile.
struct Output<'a> {
    planes: &'a Planes,
    fine: Fine,
}

impl Output<'_> {
    /// Writes the part of the maps that the tile answers for, sub-pixels to their places.
    fn put(&self, row: Span, column: Span, maps: &mut Maps) {
        match self.fine {
            Fine::Halves => self.put_fine::<2>(row, column, maps),
            Fine::Quarters => self.put_fine::<4>(row, column, maps),
        }
    }

    fn put_fine<const F: usize>(&self, row: Span, column: Span, maps: &mut Maps) {
        let width = maps.width;
        let planes = [&mut maps.foreground[..], &mut maps.distance[..], &mut maps.contact[..]];
        let from = column.from - column.start;
        for (map, plane) in planes.into_iter().enumerate() {
            for y in row.from..row.to {
                let channel = F * (F * map + (y - row.start) % F);
                let pixels = &self.planes.row(channel / 16, (y - row.start) / F)[from / F..];
                let out = &mut plane[y * width..][column.from..column.to];
                spread::<F>(pixels, channel % 16, from % F, out);
            }
        }
    }
}

/// Writes `F` channels of each pixel side by side; of the first pixel the first `skipped` not.
fn spread<const F: usize>(pixels: &[Block], channel: usize, skipped: usize, out: &mut [f32]) {
    let sub_pixels =
        |pixel: &Block| -> [f32; F] { std::array::from_fn(|dx| pixel.0[channel + dx]) };
    let (first, others) = out.split_at_mut((F - skipped).min(out.len()));
    first.copy_from_slice(&sub_pixels(&pixels[0])[skipped..][..first.len()]);
    let (whole, last) = others.as_chunks_mut();
    for (out, pixel) in whole.iter_mut().zip(&pixels[1..]) {
        *out = sub_pixels(pixel);
    }
    if !last.is_empty() {
        last.copy_from_slice(&sub_pixels(&pixels[1 + whole.len()])[..last.len()]);
    }
}

/// Normalised pixels of one tile. Beyond the frame, its last row and column are repeated.
fn cut(frame: &Frame, grey: GreySpan, edge: usize, row: Span, column: Span, tile: &mut [f32]) {
    let (width, height) = (frame.width as usize, frame.height as usize);
    let inside = edge.min(width - column.start);
    for (y, line) in (row.start..).zip(tile.chunks_exact_mut(edge)) {
        let start = y.min(height - 1) * width + column.start;
        let (pixels, missing) = line.split_at_mut(inside);
        match &frame.pixels {
            Pixels::U8(values) => scale(grey, &values[start..][..inside], pixels),
            Pixels::U16(values) => scale(grey, &values[start..][..inside], pixels),
        }
        missing.fill(pixels[inside - 1]);
    }
}

fn scale<T: Copy + Into<u16>>(grey: GreySpan, values: &[T], pixels: &mut [f32]) {
    for (pixel, &value) in pixels.iter_mut().zip(values) {
        *pixel = grey.apply(value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> Vec<u8> {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/models/nuclei/model.onnx")).unwrap()
    }

    fn maps_of(network: &Network, edge: usize, row: Span, column: Span) -> Maps {
        let noise = |at: usize| (at * 7919 % 1000) as f32 / 1000.0;
        let mut maps = Maps { width: 90, height: 70, ..Maps::default() };
        for map in [&mut maps.foreground, &mut maps.distance, &mut maps.contact] {
            map.resize(90 * 70, -1.0);
        }
        let fill = |image: &mut [f32]| {
            for (at, pixel) in image.iter_mut().enumerate() {
                *pixel = noise(at);
            }
        };
        network.tile(edge, fill, |output| output.put(row, column, &mut maps)).unwrap();
        maps
    }

    #[test]
    fn the_engine_gives_what_tract_gives_and_writes_only_its_part() {
        let ours = Network::new(shipped()).unwrap();
        assert!(matches!(ours.runner, Runner::Ours { .. }));
        let tract = Network { runner: Runner::Tract(WithTract::new(shipped())) };
        // Odd borders: a tile's part begins and ends in the middle of an output pixel.
        let row = Span { start: 3, from: 10, to: 61 };
        let column = Span { start: 8, from: 21, to: 84 };
        let ours = maps_of(&ours, 96, row, column);
        let tract = maps_of(&tract, 96, row, column);
        let planes = |maps: &Maps| {
            [maps.foreground.clone(), maps.distance.clone(), maps.contact.clone()].concat()
        };
        let (ours, tract) = (planes(&ours), planes(&tract));
        for (at, (ours, tract)) in ours.iter().zip(&tract).enumerate() {
            assert!((ours - tract).abs() < 1e-5, "{ours} and {tract} at {at}");
        }
        assert_eq!(ours.iter().filter(|&&value| value >= 0.0).count(), 3 * 51 * 63);
    }

    #[test]
    fn a_network_with_other_maps_is_refused() {
        use prost::Message;
        let mut model = tract_onnx::pb::ModelProto::decode(&shipped()[..]).unwrap();
        let graph = model.graph.as_mut().unwrap();
        // Without the last convolution and the sigmoid it gives 16 channels.
        graph.node.truncate(graph.node.len() - 2);
        graph.output[0].name = graph.node.last().unwrap().output[0].clone();
        let error = Network::new(model.encode_to_vec()).err().unwrap();
        assert!(error.to_string().contains("cannot use its output"), "{error}");
    }
}
