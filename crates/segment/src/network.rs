//! Running the network on tiles: by [`super::engine`], or by tract if the engine does not know
//! the network.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::engine::{Block, Engine, Planes, Shape, Workspace, read_onnx};
use super::instances::Maps;
use super::scale::Plane;
use super::signal::Signal;
use super::tile::{Grid, Span};
use super::with_tract::WithTract;

/// Maps the network gives. Each comes as sub-pixels: channel `n² · map + n · dy + dx` of an
/// output of 1/n of the tile's height and width, where n is 2 or 4. Foreground, distance and
/// contact; then sizes, which networks made before there was that map do not give.
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
    /// Whether tiles without signal run as well.
    runs_every_tile: bool,
}

/// Tiles of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tiles {
    /// That the frame was cut into.
    pub all: usize,
    /// That the network did not see, since there is nothing in them.
    pub skipped: usize,
}

enum Runner {
    Ours { engine: Engine, idle: Mutex<Idle> },
    Tract(WithTract),
}

/// Workspaces that are not in use now, for tiles of some edges, the latest last. Of each edge there
/// are as many as its tiles were ever run at the same time.
#[derive(Default)]
struct Idle(Vec<(usize, Vec<Workspace>)>);

impl Idle {
    /// Edges kept: that of the frames, that of the window in which sizes are estimated, and one
    /// of other frames in between.
    const EDGES: usize = 3;

    /// Those for tiles of `edge`.
    fn of(&mut self, edge: usize) -> &mut Vec<Workspace> {
        let known = self.0.iter().position(|(other, _)| *other == edge);
        let entry = known.map_or_else(|| (edge, Vec::new()), |at| self.0.remove(at));
        if self.0.len() == Self::EDGES {
            self.0.remove(0);
        }
        self.0.push(entry);
        let last = self.0.len() - 1;
        &mut self.0[last].1
    }
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
        let mut network = Self { runner, maps: 0, runs_every_tile: false };
        let edge = Grid::for_frame(1, 1).edge;
        network.maps = network.tile(edge, |image| image.fill(0.0), |output| output.maps)?;
        Ok(network)
    }

    /// Whether it tells how large objects are ([`super::size`]).
    pub fn gives_sizes(&self) -> bool {
        self.maps == *MAPS.end()
    }

    /// Whether it gives the same bits on every processor, which tract does not promise.
    pub fn is_exact(&self) -> bool {
        matches!(self.runner, Runner::Ours { .. })
    }

    /// From now on no tile is skipped: to measure what skipping saves, and that it changes nothing.
    pub(super) fn run_every_tile(&mut self) {
        self.runs_every_tile = true;
    }

    /// Where `image` has to be looked at.
    pub(super) fn signal(&self, image: &Plane) -> Signal {
        if self.runs_every_tile { Signal::everywhere(image) } else { Signal::of(image) }
    }

    /// Runs every tile of `image` and puts the maps together. Tiles run side by side in the
    /// current rayon pool; the result does not depend on how many do.
    ///
    /// # Errors
    /// When the network does not give the maps.
    pub fn run(&self, image: &Plane, maps: &mut Maps) -> Result<(), NetworkError> {
        self.run_where(image, &Signal::everywhere(image), maps).map(|_| ())
    }

    /// As [`Self::run`], but tiles that have no `signal` in all that the network would see of
    /// them are not run: their maps say that there is nothing.
    ///
    /// # Errors
    /// When the network does not give the maps.
    pub(super) fn run_where(
        &self,
        image: &Plane,
        signal: &Signal,
        maps: &mut Maps,
    ) -> Result<Tiles, NetworkError> {
        let (width, height) = (image.width, image.height);
        let grid = Grid::for_frame(width, height);
        maps.width = width;
        maps.height = height;
        for map in [&mut maps.foreground, &mut maps.distance, &mut maps.contact] {
            map.resize(width * height, 0.0);
        }
        maps.size.resize(if self.gives_sizes() { width * height } else { 0 }, 0.0);
        let seen = |span: Span| span.start..span.start + grid.edge;
        let tiles = grid.tiles();
        let (run, empty): (Vec<_>, Vec<_>) =
            tiles.into_iter().partition(|&(row, column)| signal.within(seen(row), seen(column)));
        for &(row, column) in &empty {
            clear(row, column, maps);
        }
        // Writing a tile's maps takes a fiftieth of what computing them does, so that threads
        // seldom wait for each other.
        let maps = Mutex::new(maps);
        run.par_iter().try_for_each(|&(row, column)| {
            self.tile(
                grid.edge,
                |tile| cut(image, grid.edge, row, column, tile),
                |output| {
                    let mut maps = maps.lock().unwrap_or_else(PoisonError::into_inner);
                    output.put(row, column, &mut maps);
                },
            )
        })?;
        Ok(Tiles { all: run.len() + empty.len(), skipped: empty.len() })
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
                let waiting = lock().of(edge).pop();
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
                let read = read(Output::new(planes, edge)?);
                lock().of(edge).push(workspace);
                Ok(read)
            }
            Runner::Tract(tract) => {
                let mut image = vec![0.0; edge * edge];
                fill(&mut image);
                let planes = tract.run(&image, edge)?;
                Ok(read(Output::new(&planes, edge)?))
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

/// What the network gave for one tile.
struct Output<'a> {
    planes: &'a Planes,
    /// How many of [`MAPS`].
    maps: usize,
    fine: Fine,
}

impl<'a> Output<'a> {
    fn new(planes: &'a Planes, edge: usize) -> Result<Self, NetworkError> {
        let shape = planes.shape();
        for (fine, size) in [(Fine::Halves, 2), (Fine::Quarters, 4)] {
            let Shape { channels, height, width } = shape;
            let maps = channels / (size * size);
            let whole = (maps * size * size, size * height, size * width);
            if MAPS.contains(&maps) && whole == (channels, edge, edge) {
                return Ok(Self { planes, maps, fine });
            }
        }
        Err(NetworkError::new("cannot use its output", &format!("{shape:?} for a tile of {edge}")))
    }
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
        let planes = [&mut maps.foreground, &mut maps.distance, &mut maps.contact, &mut maps.size];
        let from = column.from - column.start;
        for (map, plane) in planes.into_iter().enumerate().take(self.maps) {
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

/// Writes that there is nothing, in the part of the maps that a tile answers for. Sizes mean
/// nothing where there is no object.
fn clear(row: Span, column: Span, maps: &mut Maps) {
    let width = maps.width;
    for map in [&mut maps.foreground, &mut maps.distance, &mut maps.contact, &mut maps.size] {
        for line in map.chunks_exact_mut(width).take(row.to).skip(row.from) {
            line[column.from..column.to].fill(0.0);
        }
    }
}

/// Pixels of one tile. Beyond the image, its last row and column are repeated.
fn cut(image: &Plane, edge: usize, row: Span, column: Span, tile: &mut [f32]) {
    let inside = edge.min(image.width - column.start);
    for (y, line) in (row.start..).zip(tile.chunks_exact_mut(edge)) {
        let start = y.min(image.height - 1) * image.width + column.start;
        let (pixels, missing) = line.split_at_mut(inside);
        pixels.copy_from_slice(&image.values[start..start + inside]);
        missing.fill(pixels[inside - 1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> Vec<u8> {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/nuclei/model.onnx"))
            .unwrap()
    }

    fn maps_of(network: &Network, edge: usize, row: Span, column: Span) -> Maps {
        let noise = |at: usize| (at * 7919 % 1000) as f32 / 1000.0;
        let mut maps = Maps { width: 90, height: 70, ..Maps::default() };
        for map in [&mut maps.foreground, &mut maps.distance, &mut maps.contact, &mut maps.size] {
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
        let tract = Network {
            runner: Runner::Tract(WithTract::new(shipped())),
            maps: ours.maps,
            runs_every_tile: false,
        };
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

    /// A dim background with a bright disc of 9 pixels' radius about (`x`, `y`).
    fn disc(edge: usize, x: usize, y: usize) -> Plane {
        let value = |at: usize| {
            let inside = (at % edge).abs_diff(x).pow(2) + (at / edge).abs_diff(y).pow(2) < 81;
            if inside { 1.0 } else { 0.01 * (at * 7919 % 100) as f32 / 100.0 }
        };
        Plane { width: edge, height: edge, values: (0..edge * edge).map(value).collect() }
    }

    #[test]
    fn tiles_without_signal_are_not_run_and_what_they_said_before_is_gone() {
        let network = Network::new(shipped()).unwrap();
        let (first, second) = (disc(600, 40, 40), disc(600, 560, 560));
        let mut skipping = Maps::default();
        for plane in [&first, &second] {
            let tiles = network.run_where(plane, &network.signal(plane), &mut skipping).unwrap();
            assert_eq!(tiles, Tiles { all: 4, skipped: 3 });
        }
        let mut whole = Maps::default();
        network.run(&second, &mut whole).unwrap();
        let bright = |maps: &Maps| maps.foreground.iter().filter(|value| **value > 0.5).count();
        assert!(bright(&whole) > 100 && bright(&whole) == bright(&skipping));
        for (at, (own, other)) in whole.foreground.iter().zip(&skipping.foreground).enumerate() {
            let is_run = at % 600 >= 300 && at / 600 >= 300;
            assert!(if is_run { own == other } else { *other == 0.0 }, "{own} and {other} at {at}");
        }
    }

    #[test]
    fn every_tile_runs_when_it_is_asked_for() {
        let mut network = Network::new(shipped()).unwrap();
        network.run_every_tile();
        let plane = disc(600, 40, 40);
        let tiles = network.run_where(&plane, &network.signal(&plane), &mut Maps::default());
        assert_eq!(tiles.unwrap(), Tiles { all: 4, skipped: 0 });
    }

    #[test]
    fn a_network_with_other_maps_is_refused() {
        use prost::Message;
        let mut model = tract_onnx::pb::ModelProto::decode(&shipped()[..]).unwrap();
        let graph = model.graph.as_mut().unwrap();
        // The first two levels alone: 64 channels at an eighth of the resolution are one map.
        let end = graph.node.iter().position(|node| node.output[0] == "level1.enter").unwrap();
        graph.node.truncate(end + 1);
        graph.output[0].name = "level1.enter".to_owned();
        let error = Network::new(model.encode_to_vec()).err().unwrap();
        assert!(error.to_string().contains("cannot use its output"), "{error}");
    }
}
