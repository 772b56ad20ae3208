//! What tests of this crate share.

use std::collections::BTreeMap;

use starlift_common::datasource::{Datasource, DatasourceKind, Password, Secret, SslMode};
use starlift_common::job::{CellKind, Delimiter, Format, LoadMode, LoadSpec, OnError};

use crate::starrocks::client::Client;

/// A target with two FEs and a mapped BE.
pub(crate) fn datasource() -> Datasource {
    // Another test of this process may have installed it already.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    Datasource {
        name: "target".into(),
        kind: DatasourceKind::Starrocks,
        hosts: vec!["fe1".into()],
        port: 9030,
        load_urls: vec!["http://fe1:8030".into(), "fe2:8030".into()],
        database: None,
        username: "loader".into(),
        password: Password::Inline(Secret::new("s3cret")),
        ssl: SslMode::Disable,
        address_map: BTreeMap::from([("be-0:8040".into(), "10.1.2.3:18040".into())]),
        allowed_backends: None,
    }
}

pub(crate) fn client(datasource: &Datasource) -> Client {
    Client::new(datasource, &[]).expect("a data source with FE addresses")
}

/// A plan's load, in CSV with the usual delimiters.
pub(crate) fn load_spec() -> LoadSpec {
    let delimiter = |byte| Delimiter::new(vec![byte]).expect("one byte below 0x80");
    LoadSpec {
        datasource: "target".into(),
        database: "shop".into(),
        table: "orders".into(),
        columns: vec!["id".into(), "na`me".into()],
        cell_kinds: vec![CellKind::Number, CellKind::Text],
        load_urls: vec!["http://127.0.0.1:1".into()],
        format: Format::Csv,
        column_separator: delimiter(1),
        row_delimiter: delimiter(2),
        named_delimiters: false,
        headers: BTreeMap::new(),
        max_batch_rows: 1000,
        max_batch_bytes: 1 << 20,
        label_prefix: "sl".into(),
        timeout_s: None,
        max_part_bytes: 8 << 30,
        on_error: OnError::Exit,
        mode: LoadMode::Transaction,
        prepared_timeout_s: None,
        compression: None,
        checks: Vec::new(),
    }
}
