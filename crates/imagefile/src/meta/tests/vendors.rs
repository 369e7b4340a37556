//! What microscopes' own programs put into TIFF.

use super::*;

pub(super) fn metamorph(um: f64, unit: &str) -> String {
    format!(
        r#"<MetaData><prop id="Description" type="string" value="Exposure: 100 ms&#13;&#10;"/><prop id="MetaDataVersion" type="float" value="1"/><PlaneInfo><prop id="spatial-calibration-state" type="bool" value="on"/><prop id="spatial-calibration-x" type="float" value="{um}"/><prop id="spatial-calibration-y" type="float" value="{um}"/><prop id="spatial-calibration-units" type="string" value="{unit}"/></PlaneInfo></MetaData>"#
    )
}

#[test]
fn metamorph_s_calibration_is_read() {
    for unit in ["um", "µm", "microns", "&#181;m"] {
        is(Tiff::new().described(metamorph(0.65, unit)).resolution(72, 1, 2), 0.65, Metamorph);
    }
    is(Tiff::new().described(metamorph(650.0, "nm")), 0.65, Metamorph);
    let home = metamorph(0.65, "um").replace("Exposure", "C:/HOME/Exposure");
    is(Tiff::new().described(home), 0.65, Metamorph);
    let latin_1: Vec<u8> =
        metamorph(0.65, "µm").chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    is(Tiff::new().described(latin_1), 0.65, Metamorph);
    let off = metamorph(0.65, "um").replace(r#"value="on""#, r#"value="off""#);
    assert_eq!(size(Tiff::new().described(off)), PixelSize::default());
    assert_eq!(size(Tiff::new().described(metamorph(1.0, "pixel"))), PixelSize::default());
}

/// A block that a private tag's structure points to lies where the test says: at the file's end.
fn with_blocks(tag: u16, kind: u16, count: usize, build: impl Fn(u32) -> Vec<u8>) -> Tiff {
    // Long values lie behind the directory, the only one first: 8 + 32 + 2 + 10 · 12 + 4.
    let at = 8 + 32 + 2 + 10 * 12 + 4;
    Tiff::new().tag(tag, kind, count, build(at))
}

#[test]
fn an_stk_s_calibration_is_read() {
    let uic1 = |state: u32, unit: &str| {
        let unit = unit.as_bytes().to_vec();
        with_blocks(33_628, 4, 4, move |at| {
            let mut block = Vec::new();
            for (id, value) in [(3, state), (4, at + 32), (5, at + 32), (6, at + 40)] {
                block.extend([u32::to_le_bytes(id), value.to_le_bytes()].concat());
            }
            block.extend([650_u32.to_le_bytes(), 1000_u32.to_le_bytes()].concat());
            block.extend((unit.len() as u32).to_le_bytes());
            block.extend(&unit);
            block
        })
    };
    is(uic1(1, "um"), 0.65, Metamorph);
    is(uic1(1, "microns"), 0.65, Metamorph);
    assert_eq!(size(uic1(0, "um")), PixelSize::default());
    assert_eq!(size(uic1(1, "pixel")), PixelSize::default());
    // A unit that is none, and the tag of before MetaMorph 2.5, which is of other things.
    assert_eq!(size(uic1(1, "\u{1}\0\0\0\u{1}")), PixelSize::default());
    let distances = [1_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat().repeat(4);
    assert_eq!(size(Tiff::new().tag(33_628, 5, 4, distances)), PixelSize::default());
}

#[test]
fn an_olympus_tag_is_read() {
    let sis = with_blocks(33_560, 4, 9, |at| {
        let mut block = b"SIS0".to_vec();
        block.resize(58, 0);
        block.extend(1_u16.to_le_bytes());
        block.extend([1_u16.to_le_bytes(), 1_u16.to_le_bytes()].concat());
        block.extend((at + 68).to_le_bytes());
        block.extend([0; 10]);
        block.extend((-6_i16).to_le_bytes());
        block.extend([0.65_f64.to_le_bytes(), 0.65_f64.to_le_bytes()].concat());
        block.resize(68 + 112, 0);
        block
    });
    is(sis, 0.65, OlympusSis);
}

#[test]
fn a_fluoview_header_and_an_lsm_header_are_read() {
    let mut header = vec![0_u8; 2048];
    for (at, name) in [(284, "X"), (384, "Y")] {
        header[at..at + 1].copy_from_slice(name.as_bytes());
        header[at + 28..at + 36].copy_from_slice(&0.65_f64.to_le_bytes());
        header[at + 36..at + 38].copy_from_slice(b"um");
    }
    is(Tiff::new().tag(34_361, 1, 2048, header), 0.65, Fluoview);
    let mut info = 0x0400_494c_u32.to_le_bytes().to_vec();
    info.resize(40, 0);
    info.extend([0.65e-6_f64.to_le_bytes(), 0.65e-6_f64.to_le_bytes()].concat());
    info.resize(500, 0);
    is(Tiff::new().tag(34_412, 1, 500, info), 0.65, ZeissLsm);
}

#[test]
fn texts_of_other_programs_are_read() {
    let svs = "Aperio Image Library v10.0.50\r\n4x4|AppMag = 20|MPP = 0.65|Left = 3";
    is(Tiff::new().described(svs), 0.65, Aperio);
    let gen5 = "<BTIImageMetaData><ImageAcquisition><PixelWidth>1000</PixelWidth><PixelHeight>500</PixelHeight><ImageWidthMicrons>650.0</ImageWidthMicrons><ImageHeightMicrons>325</ImageHeightMicrons></ImageAcquisition></BTIImageMetaData>";
    is(Tiff::new().described(gen5), 0.65, Gen5);
    let volocity = "Improvision Data\r\nXCalibrationMicrons=0.65\r\nYCalibrationMicrons=0.65\r\n";
    is(Tiff::new().described(volocity), 0.65, Volocity);
    let scifio =
        "SCIFIO=0.37\naxes=Channel,X,Y\nlengths=1,4,4\nscales=1.0,0.65,0.65\nunits=null,um,um\n";
    is(Tiff::new().described(scifio), 0.65, Scifio);
    let nikon = r#"<variant><bCalibrated value="true"/><dCalibration runtype="double" value="0.65"/></variant>"#;
    is(Tiff::new().tag(65_332, 1, nikon.len(), nikon), 0.65, NisElements);
    is(Tiff::new().tag(65_333, 7, nikon.len(), nikon), 0.65, NisElements);
    is(
        Tiff::new().ascii(34_682, "[Scan]\r\nPixelWidth=6.5e-007\r\nPixelHeight=6.5e-007\r\n"),
        0.65,
        Fei,
    );
}
