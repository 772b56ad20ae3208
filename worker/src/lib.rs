mod batch;
mod encode;
mod segment;
