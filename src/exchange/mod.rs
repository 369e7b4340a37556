//! The formats in which results leave Reticle and labels come in: OME-Zarr, OME-TIFF, label
//! TIFF, COCO, GeoJSON, CSV and Parquet.
