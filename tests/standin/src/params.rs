//! The load headers of one request, read but not yet applied to a table. Pure. `plan.rs` applies them.

use hyper::header::HeaderMap;

use crate::http::header;

/// Which interface a load came through; the transaction interface ignores some headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interface {
    StreamLoad,
    Transaction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    Json,
}

/// How the bytes of a body are packed. A CSV body says so by its format's name, a JSON body by `compression` or
/// `Content-Encoding`, which do nothing to CSV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Gzip,
    Deflate,
    Zstd,
    Lz4Frame,
}

/// Headers that shape a load. Two loads of one transaction must be equal in all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadParams {
    pub(crate) format: Format,
    pub(crate) codec: Option<Codec>,
    pub(crate) columns: Option<String>,
    pub(crate) filter: Option<String>,
    pub(crate) column_separator: Option<String>,
    pub(crate) row_delimiter: Option<String>,
    pub(crate) strict_mode: Option<String>,
    pub(crate) partitions: Option<String>,
    pub(crate) temporary_partitions: Option<String>,
    pub(crate) compression: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) jsonpaths: Option<String>,
    pub(crate) json_root: Option<String>,
    pub(crate) strip_outer_array: bool,
    pub(crate) partial_update: bool,
    pub(crate) merge_condition: Option<String>,
    pub(crate) quoting: Quoting,
    /// Headers that change nothing here but must not change between loads either.
    others: Vec<Option<String>>,
}

/// CSV options of plain stream loads only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Quoting {
    pub(crate) enclose: Option<u8>,
    pub(crate) escape: Option<u8>,
    pub(crate) skip_header: usize,
    pub(crate) trim_space: bool,
}

const OTHERS: [&str; 6] =
    ["timezone", "load_mem_limit", "exec_mem_limit", "negative", "partial_update_mode", "load_dop"];

/// The `format` header, and the codec that is part of its name; the error is the server's text.
pub(crate) fn format(headers: &HeaderMap) -> Result<(Format, Option<Codec>), String> {
    let name = header(headers, "format").unwrap_or_default();
    match name.to_ascii_lowercase().as_str() {
        "" | "csv" => Ok((Format::Csv, None)),
        "json" => Ok((Format::Json, None)),
        "gzip" => Ok((Format::Csv, Some(Codec::Gzip))),
        "deflate" => Ok((Format::Csv, Some(Codec::Deflate))),
        "zstd" => Ok((Format::Csv, Some(Codec::Zstd))),
        "lz4" => Ok((Format::Csv, Some(Codec::Lz4Frame))),
        _ => Err(format!("unknown data format, format={name}")),
    }
}

/// The codec of a JSON body.
fn json_codec(headers: &HeaderMap) -> Result<Option<Codec>, String> {
    let Some(name) = filled(headers, "compression").or_else(|| filled(headers, "content-encoding")) else {
        return Ok(None);
    };
    match name.to_ascii_lowercase().as_str() {
        "gzip" => Ok(Some(Codec::Gzip)),
        "zstd" => Ok(Some(Codec::Zstd)),
        "lz4_frame" => Ok(Some(Codec::Lz4Frame)),
        _ => Err(format!("unsupported compression type: {name}")),
    }
}

/// `timeout` in whole seconds, if given; the error is the server's text.
pub(crate) fn timeout_second(headers: &HeaderMap) -> Result<Option<u64>, String> {
    match header(headers, "timeout") {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        // A number out of range is the leader's to refuse, a negative one included.
        Some(text) => match text.parse::<i64>() {
            Ok(seconds) => Ok(Some(u64::try_from(seconds).unwrap_or(0))),
            Err(_) => Err("Invalid timeout format".to_owned()),
        },
    }
}

/// `true` in any case.
pub(crate) fn flag(headers: &HeaderMap, name: &str) -> bool {
    header(headers, name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// `max_filter_ratio`, 0 when absent.
pub(crate) fn max_filter_ratio(headers: &HeaderMap) -> Result<f64, String> {
    match header(headers, "max_filter_ratio") {
        None => Ok(0.0),
        Some(text) => match text.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
            _ => Err(format!("Invalid max_filter_ratio: {text}, it must be between 0 and 1")),
        },
    }
}

impl LoadParams {
    /// Reads everything; only the format and its packing can be wrong at this point.
    pub(crate) fn read(headers: &HeaderMap, interface: Interface) -> Result<Self, String> {
        let quoting = match interface {
            Interface::StreamLoad => Quoting::read(headers),
            Interface::Transaction => Quoting::default(),
        };
        let (format, codec) = format(headers)?;
        let codec = if format == Format::Json { json_codec(headers)? } else { codec };
        Ok(Self {
            format,
            codec,
            columns: filled(headers, "columns"),
            filter: filled(headers, "where"),
            column_separator: filled(headers, "column_separator"),
            row_delimiter: filled(headers, "row_delimiter"),
            strict_mode: filled(headers, "strict_mode"),
            partitions: filled(headers, "partitions"),
            temporary_partitions: filled(headers, "temporary_partitions"),
            compression: filled(headers, "compression"),
            content_encoding: filled(headers, "content-encoding"),
            jsonpaths: filled(headers, "jsonpaths"),
            json_root: filled(headers, "json_root"),
            strip_outer_array: flag(headers, "strip_outer_array"),
            partial_update: header(headers, "partial_update").as_deref() == Some("true"),
            merge_condition: filled(headers, "merge_condition"),
            quoting,
            others: OTHERS.iter().map(|name| filled(headers, name)).collect(),
        })
    }
}

impl Quoting {
    fn read(headers: &HeaderMap) -> Self {
        let first_byte = |name| header(headers, name).and_then(|text| text.bytes().next());
        Self {
            enclose: first_byte("enclose"),
            escape: first_byte("escape"),
            skip_header: header(headers, "skip_header").and_then(|text| text.parse().ok()).unwrap_or(0),
            trim_space: flag(headers, "trim_space"),
        }
    }

    pub(crate) fn is_quoted(&self) -> bool {
        self.enclose.is_some() || self.escape.is_some()
    }
}

fn filled(headers: &HeaderMap, name: &str) -> Option<String> {
    header(headers, name).filter(|text| !text.is_empty())
}
