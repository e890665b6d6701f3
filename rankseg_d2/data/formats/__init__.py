"""How files are read and written: label images, COCO and YouTube-VIS json, RLE, MATLAB, frames."""
