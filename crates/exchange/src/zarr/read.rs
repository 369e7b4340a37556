//! Label images of OME-Zarr, ours and others': Zarr 3 and 2, sharded or not, with whatever
//! `zarrs` decodes; OME metadata is used where it can be understood, and not insisted on.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use zarrs::array::codec::api::CodecOptions;
use zarrs::array::{Array, ElementOwned, data_type};

use super::super::layout::series_number;
use super::super::{ReadError, guarded};
use super::foreign::{self, ForeignFiles, METADATA_BYTES};
use reticle_base::foreign_file::{self, ForeignFileError};
use reticle_domain::label_image::LabelImage;
use reticle_imagefile::MAX_PIXELS;

/// Groups that are gone through on the way to an array: image, `labels`, label image.
const DEEPEST: usize = 4;

/// An array of label images, one for each position along its time axis.
pub struct LabelArray {
    path: PathBuf,
    array: Array<ForeignFiles>,
    /// Which axis is time; `None` where there is a single image.
    time: Option<usize>,
    series: Option<u32>,
}

impl LabelArray {
    /// Finds the label images at `path`: an OME-Zarr image with one label image in its
    /// `labels`, a label image, or a bare array.
    ///
    /// # Errors
    /// When there is none or more than one, or its array is of a kind that is not read.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        guarded(path, || Self::found(path))
    }

    fn found(path: &Path) -> Result<Self, ReadError> {
        foreign::bound_decoders();
        let group = find(path, DEEPEST)?;
        let store = Arc::new(ForeignFiles::new(group.array.clone()));
        let array = Array::open(store, "/").map_err(|error| ReadError::new(&group.array, error))?;
        let dimensions = array.shape().len();
        let time = match (dimensions, group.time) {
            (2, _) => None,
            (3..=5, Some(time)) if time < dimensions - 2 => Some(time),
            (3..=5, None) => Some(0),
            _ => {
                return Err(ReadError::new(
                    &group.array,
                    format!("has {dimensions} axes; save it with the axes t, y, x"),
                ));
            }
        };
        let outer = &array.shape()[..dimensions - 2];
        if outer.iter().enumerate().any(|(axis, &length)| Some(axis) != time && length != 1) {
            let why = "has several channels or planes; save it with the axes t, y, x";
            return Err(ReadError::new(&group.array, why));
        }
        let pixels = array.shape()[dimensions - 2].saturating_mul(array.shape()[dimensions - 1]);
        if pixels > MAX_PIXELS || pixels == 0 {
            let why = format!("has {pixels} pixels a frame; {MAX_PIXELS} are the most");
            return Err(ReadError::new(&group.array, why));
        }
        foreign::check_chunks(&array).map_err(|why| ReadError::new(&group.array, why))?;
        Ok(Self { path: path.to_owned(), array, time, series: group.series })
    }

    /// Number of the series, where the files say so.
    pub fn series(&self) -> Option<u32> {
        self.series
    }

    /// Positions along time.
    pub fn positions(&self) -> Range<u64> {
        0..self.time.map_or(1, |axis| self.array.shape()[axis])
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        let [.., height, width] = self.array.shape() else { return (0, 0) };
        // In range: `open` has compared their product with a smaller number.
        (*width as u32, *height as u32)
    }

    /// The labels at a position; `None` where nothing was written for it.
    ///
    /// # Errors
    /// When the data is damaged, or its values are no labels.
    pub fn labels(&self, position: u64) -> Result<Option<LabelImage>, ReadError> {
        guarded(&self.path, || self.labels_at(position))
    }

    fn labels_at(&self, position: u64) -> Result<Option<LabelImage>, ReadError> {
        let of = self.array.data_type();
        let labels = if *of == data_type::uint8() {
            self.written::<u8>(position)
        } else if *of == data_type::uint16() {
            self.written::<u16>(position)
        } else if *of == data_type::uint32() {
            self.written::<u32>(position)
        } else if *of == data_type::uint64() {
            self.written::<u64>(position)
        } else if *of == data_type::int8() {
            self.written::<i8>(position)
        } else if *of == data_type::int16() {
            self.written::<i16>(position)
        } else if *of == data_type::int32() {
            self.written::<i32>(position)
        } else if *of == data_type::int64() {
            self.written::<i64>(position)
        } else {
            Err(format!("its values are {of}; labels are whole numbers"))
        };
        let (width, height) = self.size();
        labels
            .and_then(|labels| {
                labels
                    .map(|labels| {
                        LabelImage::of_others(width, height, labels)
                            .map_err(|error| error.to_string())
                    })
                    .transpose()
            })
            .map_err(|why| ReadError::new(&self.path, format!("position {position}: {why}")))
    }

    fn written<T: ElementOwned>(&self, position: u64) -> Result<Option<Vec<u32>>, String>
    where
        u32: TryFrom<T>,
    {
        let subset = self.subset(position);
        let labels = values::<T>(&self.array, &subset)?;
        let is_background = labels.iter().all(|label| *label == 0);
        Ok((!is_background || self.is_written::<T>(&subset)).then_some(labels))
    }

    fn subset(&self, position: u64) -> Vec<Range<u64>> {
        let ranges = self.array.shape().iter().enumerate();
        ranges
            .map(|(axis, &length)| match self.time {
                Some(time) if time == axis => position..position + 1,
                _ => 0..length,
            })
            .collect()
    }

    /// Whether anything was written for what reads as background: the same is read once more as
    /// if what is missing were 1. (`zarrs` 0.23 could be asked for the place of an inner chunk,
    /// but does not tell that one is missing.) What cannot be told counts as written.
    fn is_written<T: ElementOwned>(&self, subset: &[Range<u64>]) -> bool
    where
        u32: TryFrom<T>,
    {
        let probe = || {
            let mut metadata = serde_json::to_value(self.array.metadata()).ok()?;
            metadata["fill_value"] = Value::from(1);
            let metadata = serde_json::from_value(metadata).ok()?;
            let probe = Array::new_with_metadata(self.array.storage(), "/", metadata).ok()?;
            values::<T>(&probe, subset).ok()
        };
        probe().is_none_or(|values| values.contains(&0))
    }
}

/// The values of one frame as labels.
fn values<T: ElementOwned>(
    array: &Array<ForeignFiles>,
    subset: &[Range<u64>],
) -> Result<Vec<u32>, String>
where
    u32: TryFrom<T>,
{
    // One chunk at a time: several of the largest would not fit in memory.
    let options = CodecOptions::default().with_concurrent_target(1);
    let values: Vec<T> =
        array.retrieve_array_subset_opt(&subset, &options).map_err(|error| error.to_string())?;
    values
        .into_iter()
        .map(u32::try_from)
        .collect::<Result<_, _>>()
        .map_err(|_outside| "a value is negative or above 4,294,967,295".to_owned())
}

/// Where a label array is, and what is said of it.
struct Place {
    array: PathBuf,
    time: Option<usize>,
    series: Option<u32>,
}

/// Whether a folder is a Zarr node.
pub(crate) fn is_node(path: &Path) -> bool {
    ["zarr.json", ".zgroup", ".zarray"].iter().any(|name| path.join(name).is_file())
}

fn find(path: &Path, deepest: usize) -> Result<Place, ReadError> {
    let named = || {
        let mut names = path.iter().rev().filter_map(|name| name.to_str());
        names.find_map(series_number)
    };
    let Some(attributes) = attributes(path)? else {
        return Ok(Place { array: path.to_owned(), time: None, series: named() });
    };
    let ome = ome(&attributes);
    let labels = path.join("labels");
    if ome["image-label"].is_null() && is_node(&labels) {
        return match listed(&labels)?.as_slice() {
            [_] if deepest == 0 => Err(ReadError::new(path, "has groups in groups without end")),
            [only] => find(&labels.join(only), deepest - 1),
            [] => Err(ReadError::new(path, "has no label image; export one into it")),
            several => Err(ReadError::new(
                path,
                format!(
                    "has several label images; name one of them, as {}: {}",
                    labels.join(&several[0]).display(),
                    several.join(", ")
                ),
            )),
        };
    }
    let image = &ome["multiscales"][0];
    let dataset = image["datasets"][0]["path"].as_str().unwrap_or("0");
    // A path of foreign making stays inside its folder.
    if Path::new(dataset).components().any(|part| !matches!(part, std::path::Component::Normal(_)))
    {
        return Err(ReadError::new(path, format!("its data set \"{dataset}\" is not inside it")));
    }
    let time = image["axes"].as_array().and_then(|axes| {
        axes.iter().position(|axis| axis["name"] == "t" || axis["type"] == "time")
    });
    let series = attributes["reticle"]["series"].as_u64();
    let series = series.and_then(|number| number.try_into().ok()).or_else(named);
    Ok(Place { array: path.join(dataset), time, series })
}

/// Names of the label images in a `labels` group: as it lists them, else the groups in it.
fn listed(labels: &Path) -> Result<Vec<String>, ReadError> {
    let attributes = attributes(labels)?.unwrap_or_default();
    if let Some(names) = ome(&attributes)["labels"].as_array() {
        let is_plain = |name: &&str| !name.is_empty() && !name.contains("..");
        let names = names.iter().filter_map(Value::as_str).filter(is_plain);
        return Ok(names.map(|name| name.trim_start_matches('/').to_owned()).collect());
    }
    let entries = std::fs::read_dir(labels).map_err(|error| ReadError::new(labels, error))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|entry| is_node(entry))
        .filter_map(|entry| Some(entry.file_name()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Since 0.5 under `ome`, before that at the top.
fn ome(attributes: &Value) -> &Value {
    if attributes["ome"].is_object() { &attributes["ome"] } else { attributes }
}

/// The attributes of a group; `None` for an array.
fn attributes(path: &Path) -> Result<Option<Value>, ReadError> {
    let json = |name: &str| -> Result<Option<Value>, ReadError> {
        let file = path.join(name);
        match foreign_file::read(&file, METADATA_BYTES) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| ReadError::new(&file, error)),
            Err(ForeignFileError::Unreadable(error))
                if error.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(error) => Err(ReadError::new(&file, error)),
        }
    };
    if let Some(mut node) = json("zarr.json")? {
        let is_array = node["node_type"] == "array";
        // Of what is no object, nothing can be taken.
        let attributes = node.get_mut("attributes").map(Value::take).unwrap_or_default();
        return Ok((!is_array).then_some(attributes));
    }
    if path.join(".zarray").is_file() {
        return Ok(None);
    }
    if path.join(".zgroup").is_file() {
        return Ok(Some(json(".zattrs")?.unwrap_or_default()));
    }
    Err(ReadError::new(path, "is no Zarr group or array: it has no zarr.json"))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::super::layout::SeriesKeys;
    use super::super::super::testing;
    use super::super::{ShardShape, ShardWriter, metadata};
    use super::*;
    use reticle_domain::facts::{ModelFacts, Series};

    fn put(folder: &Path, key: &str, bytes: &[u8]) {
        let path = folder.join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn metadata_that_is_no_object_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["[]", "[[1]]", "7", "\"x\"", "null", "true"] {
            put(folder.path(), "zarr.json", text.as_bytes());
            assert!(LabelArray::open(folder.path()).is_err(), "{text}");
        }
    }

    /// One series with the label images of each model at its even positions.
    fn write(folder: &Path, images: &[LabelImage], models: &[ModelFacts]) {
        let series = Series {
            width: images[0].width(),
            height: images[0].height(),
            part_frames: 3,
            ..testing::series(2 * images.len() as u64, 4)
        };
        let keys = SeriesKeys::exported(&series);
        put(folder, &keys.group(), &metadata::image_group("plate", &series, None));
        put(folder, &keys.labels(), &metadata::labels_group(models));
        let shape = ShardShape {
            frames: 3,
            width: series.width,
            height: series.height,
            bytes_per_pixel: 4,
        };
        for model in models {
            put(folder, &keys.label_group(model), &metadata::label_group(&series, model, None));
            put(folder, &keys.label_array(model), &metadata::label_array(&series));
            for part in 0..series.frames.div_ceil(3) {
                let path = folder.join(keys.label_shard(model, part));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                let mut shard = ShardWriter::create(&path, shape).unwrap();
                for position in (0..3).filter(|position| (part * 3 + position) % 2 == 0) {
                    if let Some(image) = images.get(((part * 3 + position) / 2) as usize) {
                        shard.push_labels(position as u32, image.labels()).unwrap();
                    }
                }
                shard.finish().unwrap();
            }
        }
    }

    proptest! {
        #[test]
        fn any_label_images_come_back_and_what_was_not_written_is_none(
            image in testing::any_labels(),
        ) {
            let empty = LabelImage::empty(image.width(), image.height());
            let images = [image, empty];
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), &images, &[testing::model("cells")]);
            let array = LabelArray::open(&folder.path().join("series-4.ome.zarr")).unwrap();
            prop_assert_eq!(array.series(), Some(4));
            prop_assert_eq!(array.positions(), 0..4);
            for position in array.positions() {
                let expected = position.is_multiple_of(2).then(|| &images[position as usize / 2]);
                let found = array.labels(position).unwrap();
                prop_assert_eq!(found.as_ref(), expected);
            }
        }
    }

    #[test]
    fn more_objects_than_16_bits_can_number_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let image = testing::many_objects();
        write(folder.path(), std::slice::from_ref(&image), &[testing::model("cells")]);
        let array = LabelArray::open(&folder.path().join("series-4.ome.zarr")).unwrap();
        assert_eq!(array.labels(0).unwrap(), Some(image));
    }

    #[test]
    fn of_several_label_images_one_has_to_be_named() {
        let folder = tempfile::tempdir().unwrap();
        let models = [testing::model("cells"), testing::model("nuclei")];
        write(folder.path(), &[LabelImage::empty(3, 2)], &models);
        let path = folder.path().join("series-4.ome.zarr");
        let error = LabelArray::open(&path).err().unwrap().to_string();
        assert!(error.contains("several label images") && error.contains("nuclei-"), "{error}");
        assert!(LabelArray::open(&path.join("labels").join(models[0].key())).is_ok());
    }

    /// An array of two frames of 3 × 2 as another program would write it: one chunk a frame, no
    /// compression, and only the first one is there.
    fn bare(folder: &Path, data_type: &str, shape: &[u64], first: &[u8]) {
        let mut chunk = shape.to_vec();
        chunk[0] = 1;
        let node = json!({
            "zarr_format": 3,
            "node_type": "array",
            "shape": shape,
            "data_type": data_type,
            "chunk_grid": { "name": "regular", "configuration": { "chunk_shape": chunk } },
            "chunk_key_encoding": { "name": "default" },
            "fill_value": 0,
            "codecs": [{ "name": "bytes", "configuration": { "endian": "big" } }],
        });
        put(folder, "zarr.json", node.to_string().as_bytes());
        put(folder, &format!("c/0{}", "/0".repeat(shape.len() - 1)), first);
    }

    #[test]
    fn bare_arrays_of_any_whole_numbers_are_read() {
        for (data_type, bytes) in [("uint8", 1), ("int16", 2), ("uint32", 4), ("int64", 8)] {
            let folder = tempfile::tempdir().unwrap();
            let first: Vec<u8> =
                (0..6_u64).flat_map(|label| label.to_be_bytes()[8 - bytes..].to_vec()).collect();
            bare(folder.path(), data_type, &[2, 1, 2, 3], &first);
            let array = LabelArray::open(folder.path()).unwrap();
            assert_eq!((array.size(), array.positions(), array.series()), ((3, 2), 0..2, None));
            let labels = array.labels(0).unwrap().unwrap();
            assert_eq!(labels.labels(), [0, 1, 2, 3, 4, 5], "{data_type}");
            assert_eq!(array.labels(1).unwrap(), None, "{data_type}");
        }
    }

    #[test]
    fn what_are_no_label_images_is_said() {
        let opened = |data_type: &str, shape: &[u64], first: &[u8]| {
            let folder = tempfile::tempdir().unwrap();
            bare(folder.path(), data_type, shape, first);
            LabelArray::open(folder.path()).and_then(|array| array.labels(0)).unwrap_err()
        };
        let floats = opened("float32", &[2, 2, 3], &[0; 24]).to_string();
        assert!(floats.contains("labels are whole numbers"), "{floats}");
        let negative = opened("int8", &[2, 2, 3], &[0, 255, 0, 0, 0, 0]).to_string();
        assert!(negative.contains("position 0: a value is negative"), "{negative}");
        let short = opened("uint8", &[2, 2, 3], &[0; 5]).to_string();
        assert!(short.contains("position 0"), "{short}");
        let channels = opened("uint8", &[2, 3, 2, 3], &[0; 18]).to_string();
        assert!(channels.contains("several channels"), "{channels}");
        let large = opened("uint8", &[2, 1 << 20, 1 << 20], &[]).to_string();
        assert!(large.contains("are the most"), "{large}");
        let nothing = LabelArray::open(Path::new("/nowhere")).err().unwrap().to_string();
        assert!(nothing.contains("it has no zarr.json"), "{nothing}");
    }

    /// An array that says of itself what `change` makes of a small one.
    fn changed(folder: &Path, change: impl FnOnce(&mut Value)) {
        bare(folder, "uint8", &[2, 2, 3], &[1; 6]);
        let path = folder.join("zarr.json");
        let mut node: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut node);
        fs::write(&path, node.to_string()).unwrap();
    }

    fn sharded(outer: [u64; 3], inner: [u64; 3]) -> impl FnOnce(&mut Value) {
        move |node| {
            node["shape"] = json!([2, 8, 8]);
            node["chunk_grid"]["configuration"]["chunk_shape"] = json!(outer);
            let plain = node["codecs"].clone();
            node["codecs"] = json!([{ "name": "sharding_indexed", "configuration": {
                "chunk_shape": inner,
                "codecs": plain,
                "index_codecs": [
                    { "name": "bytes", "configuration": { "endian": "little" } },
                    { "name": "crc32c" },
                ],
                "index_location": "end",
            } }]);
        }
    }

    #[test]
    fn sizes_that_no_memory_has_are_refused_before_anything_is_read() {
        let refusal = |change: Box<dyn FnOnce(&mut Value)>| {
            let folder = tempfile::tempdir().unwrap();
            changed(folder.path(), change);
            LabelArray::open(folder.path()).map(drop).unwrap_err().to_string()
        };
        let chunk = |shape: [u64; 3]| {
            Box::new(move |node: &mut Value| {
                node["chunk_grid"]["configuration"]["chunk_shape"] = json!(shape);
            })
        };
        for shape in [[1, 1 << 20, 1 << 20], [1 << 40, 2, 3], [1 << 63, 1 << 63, 1 << 63]] {
            let said = refusal(chunk(shape));
            assert!(said.contains("has chunks of"), "{said}");
        }
        let tiny = refusal(Box::new(|node| {
            node["shape"] = json!([2, 8192, 8192]);
            node["chunk_grid"]["configuration"]["chunk_shape"] = json!([1, 1, 1]);
        }));
        assert!(tiny.contains("67108864 chunks a frame; 65536 are the most"), "{tiny}");
        let said = refusal(Box::new(sharded([1 << 30, 8, 8], [1, 8, 8])));
        assert!(said.contains("its shards hold more than"), "{said}");
        let said = refusal(Box::new(sharded([2, 1 << 20, 1 << 20], [1, 1 << 20, 1 << 20])));
        assert!(said.contains("has chunks of"), "{said}");
        let folder = tempfile::tempdir().unwrap();
        changed(folder.path(), sharded([2, 8, 8], [1, 8, 8]));
        assert!(LabelArray::open(folder.path()).is_ok());
    }

    #[test]
    fn a_chunk_that_unpacks_to_more_than_it_should_or_is_no_file_is_refused() {
        let read = |codec: Option<&str>, plant: &dyn Fn(&Path)| {
            let folder = tempfile::tempdir().unwrap();
            changed(folder.path(), |node| {
                if let Some(name) = codec {
                    let packed = json!({ "name": name, "configuration": { "level": 1 } });
                    node["codecs"].as_array_mut().unwrap().push(packed);
                }
            });
            let chunk = folder.path().join("c/0/0/0");
            fs::remove_file(&chunk).unwrap();
            plant(&chunk);
            LabelArray::open(folder.path()).and_then(|array| array.labels(0))
        };
        let gzip = |bytes: &[u8]| {
            use std::io::Write as _;
            let fast = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), fast);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let sound = read(Some("gzip"), &|path| fs::write(path, gzip(&[1; 6])).unwrap());
        assert_eq!(sound.unwrap().unwrap().labels(), [1; 6]);
        let zeros = vec![0; 16 << 20];
        for (name, bomb) in
            [("gzip", gzip(&zeros)), ("zstd", zstd::encode_all(&*zeros, 1).unwrap())]
        {
            let said = read(Some(name), &|path| fs::write(path, &bomb).unwrap());
            let said = said.unwrap_err().to_string();
            assert!(said.contains("holds more than the 6 bytes of a chunk"), "{said}");
        }
        let pipe = |path: &Path| {
            rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR).unwrap();
        };
        let device = |path: &Path| std::os::unix::fs::symlink("/dev/zero", path).unwrap();
        for plant in [&pipe as &dyn Fn(&Path), &device] {
            let said = read(None, plant).unwrap_err().to_string();
            assert!(said.contains("is no regular file"), "{said}");
        }
        let endless = read(None, &|path| {
            fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
        });
        let said = endless.unwrap_err().to_string();
        assert!(said.contains("are the most that are read"), "{said}");
    }

    #[test]
    fn paths_in_metadata_do_not_lead_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = json!([{ "datasets": [{ "path": "../../secret" }] }]);
        let group = json!({
            "zarr_format": 3,
            "node_type": "group",
            "attributes": { "ome": { "multiscales": dataset, "image-label": {} } },
        });
        put(folder.path(), "zarr.json", group.to_string().as_bytes());
        let error = LabelArray::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("is not inside it"), "{error}");
    }
}
