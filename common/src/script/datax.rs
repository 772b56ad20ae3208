//! DataX job files, brought into the DataWorks form, with the servers that they name as data sources. Pure.
//!
//! What DataX drops in silence is said or refused. The script that comes out holds no account and no address of a query
//! port: those are in the data sources, and only there.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::faults::Faults;
use super::fields::{Object, integer, is_blank, is_no_limit};
use super::jdbc::{self, Address, InvalidAddress, Ssl};
use super::reader::is_utf8;
use super::{Parsed, text};
use crate::datasource::{Datasource, DatasourceKind, Password, Secret, SslMode};
use crate::load_url;
use crate::problem::Problem;

/// A DataX job in the DataWorks form.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted {
    /// The script; its strings are those of the file, parameters included.
    pub script: String,
    /// What the script's steps name, with the file's accounts.
    pub datasources: Vec<Datasource>,
    /// What the file says and the script does not, each with its JSON pointer in the file.
    pub warnings: Vec<String>,
    /// Where the parts of the script stand in the file: JSON pointers, longer ones first.
    places: Vec<(String, String)>,
}

/// Whether the text is a DataX job rather than a DataWorks script.
pub fn is_datax(script: &str) -> bool {
    text::read(script).is_ok_and(|file| file.get("job").is_some() && file.get("steps").is_none())
}

/// Converts the file. Checks what is DataX's own; the rest is left to [`Converted::parse`].
pub fn convert(file: &str) -> Result<Converted, Vec<Problem>> {
    let file = text::read(file).map_err(|problem| vec![problem])?;
    let faults = Faults::default();
    let converted = convert_file(&file, &faults);
    match (converted, faults.into_parts()) {
        (Some(converted), (problems, warnings)) if problems.is_empty() => {
            Ok(Converted { warnings, ..converted })
        }
        (_, (problems, _)) => Err(problems),
    }
}

impl Converted {
    /// The job that the script describes. Problems and warnings have their places in the file; those of the conversion
    /// are among them.
    pub fn parse(&self) -> Result<Parsed, Vec<Problem>> {
        match super::parse(&self.script) {
            Ok(parsed) => {
                let warnings = parsed.warnings.iter().map(|warning| self.place_in_file(warning));
                Ok(Parsed { warnings: self.warnings.iter().cloned().chain(warnings).collect(), ..parsed })
            }
            Err(problems) => {
                let placed = |problem: Problem| {
                    let place = self.place_in_file(&problem.place);
                    problem.at(place)
                };
                Err(problems.into_iter().map(placed).collect())
            }
        }
    }

    /// The text with the pointer at its beginning led back to the file.
    fn place_in_file(&self, text: &str) -> String {
        let found = self.places.iter().find_map(|(script, file)| {
            let rest = text.strip_prefix(script.as_str())?;
            (rest.is_empty() || rest.starts_with(['/', ':'])).then_some((file, rest))
        });
        found.map_or_else(|| text.to_owned(), |(file, rest)| format!("{file}{rest}"))
    }
}

#[derive(Serialize)]
struct Script {
    #[serde(rename = "type")]
    kind: &'static str,
    version: &'static str,
    steps: [Step; 2],
    setting: Map<String, Value>,
    order: Value,
}

#[derive(Serialize)]
struct Step {
    #[serde(rename = "stepType")]
    kind: &'static str,
    name: &'static str,
    category: &'static str,
    parameter: Map<String, Value>,
}

fn convert_file(file: &Value, faults: &Faults) -> Option<Converted> {
    let Value::Object(map) = file else {
        faults.error("", "not a DataX job (job.content)", "");
        return None;
    };
    let root = Object::root(map, faults);
    root.refuse_unknown_keys(&["job", "core", "common"], &[]);
    let Some(job) = root.object("job") else {
        if root.get("job").is_none() {
            faults.error("/job", "not a DataX job (job.content)", "");
        }
        return None;
    };
    job.refuse_unknown_keys(&["setting", "content"], HOOKS);
    for hook in HOOKS.iter().filter(|hook| job.get(hook).is_some()) {
        faults.warn(&job.place(hook), format!("{hook} is not run"));
    }
    let setting = settings(&root, &job, faults);
    let (place, content) = content(&job, faults)?;
    let content = Object::new(place.clone(), content, faults);
    content.refuse_unknown_keys(&["reader", "writer", "transformer"], &[]);
    if content.get("transformer").is_some_and(|value| !is_empty(value)) {
        faults.unsupported(
            &content.place("transformer"),
            "transformers are not supported",
            "remove them, or do it in the reader's column expressions",
        );
    }
    let mut servers = Servers { faults, sources: Vec::new() };
    let reader = reader(&content, &mut servers);
    let writer = writer(&content, &mut servers);
    let (reader, (writer, table)) = (reader?, writer?);
    let script = Script {
        kind: "job",
        version: "2.0",
        steps: [reader, writer],
        setting,
        order: json!({ "hops": [{ "from": "Reader", "to": "Writer" }] }),
    };
    let script = serde_json::to_string_pretty(&script).expect("JSON values become JSON text") + "\n";
    let places = [
        ("/steps/0/parameter/table", format!("{place}/reader/parameter/connection/0/table")),
        ("/steps/0/parameter", format!("{place}/reader/parameter")),
        ("/steps/1/parameter/table", table),
        ("/steps/1/parameter", format!("{place}/writer/parameter")),
        ("/setting/common", "/common".to_owned()),
        ("/setting", "/job/setting".to_owned()),
    ];
    let places = places.into_iter().map(|(script, file)| (script.to_owned(), file)).collect();
    Some(Converted { script, datasources: servers.sources, warnings: Vec::new(), places })
}

const HOOKS: &[&str] = &["preHandler", "postHandler", "jobInfo"];

/// The one element of `content` that DataX runs, and its pointer. Addax writes it without the list.
fn content<'a>(job: &Object<'a>, faults: &Faults) -> Option<(String, &'a Map<String, Value>)> {
    let place = job.place("content");
    let (place, element) = match job.get("content") {
        Some(Value::Array(list)) => match list.as_slice() {
            [one] => (format!("{place}/0"), one),
            [] => {
                faults.error(&place, "content is empty", "it holds one reader and one writer");
                return None;
            }
            several => {
                let message =
                    format!("content has {} elements; DataX silently ran only the first", several.len());
                faults.error(&place, message, "split the file");
                return None;
            }
        },
        Some(one) => (place, one),
        None => {
            faults.error(&place, "job.content is required", "a list with one reader and one writer");
            return None;
        }
    };
    match element {
        Value::Object(map) => Some((place, map)),
        _ => {
            faults.error(&place, "content must be an object with a reader and a writer", "");
            None
        }
    }
}

/// What both plugins have: their kind, their `parameter` and their account.
struct Plugin<'a> {
    kind: DatasourceKind,
    parameter: Object<'a>,
    username: String,
    password: Secret,
}

const READERS: &[(&str, DatasourceKind)] =
    &[("mysqlreader", DatasourceKind::Mysql), ("starrocksreader", DatasourceKind::Starrocks)];
const WRITERS: &[(&str, DatasourceKind)] = &[("starrockswriter", DatasourceKind::Starrocks)];

fn plugin<'a>(
    content: &Object<'a>,
    role: &str,
    known: &[(&str, DatasourceKind)],
    keys: &[&str],
    ignored: &[&str],
    faults: &'a Faults,
) -> Option<Plugin<'a>> {
    let Some(step) = content.object(role) else {
        if content.get(role).is_none() {
            faults.error(&content.place(role), format!("content needs a {role}"), "");
        }
        return None;
    };
    let name = step.text("name");
    let kind = known.iter().find(|(known, _)| Some(*known) == name.as_deref()).map(|(_, kind)| *kind);
    if kind.is_none() {
        let name = name.unwrap_or_else(|| "without a name".into());
        let supported: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let message = format!("unsupported {role} type {name}; supported: {}", supported.join(", "));
        faults.unsupported(&step.place("name"), message, "");
    }
    let Some(parameter) = step.object("parameter") else {
        if step.get("parameter").is_none() {
            faults.error(&step.place("parameter"), "parameter is required", "an object");
        }
        return None;
    };
    parameter.refuse_unknown_keys(keys, ignored);
    let username = parameter.required_text("username", "the account of the database");
    let password = password(&parameter, faults);
    Some(Plugin { kind: kind?, parameter, username: username?, password: password? })
}

/// Empty where there is none. A message never shows it, whatever it is.
fn password(parameter: &Object<'_>, faults: &Faults) -> Option<Secret> {
    if parameter.get("*password").is_some() || parameter.get("*username").is_some() {
        let message = "encrypted accounts are not supported";
        faults.unsupported(&parameter.place("*password"), message, "give username and password themselves");
        return None;
    }
    match parameter.get("password") {
        None => Some(Secret::default()),
        Some(Value::String(text)) => Some(Secret::new(text)),
        Some(Value::Number(number)) => Some(Secret::new(number.to_string())),
        Some(_) => {
            faults.error(&parameter.place("password"), "password must be a string", "");
            None
        }
    }
}

const READER_KEYS: &[&str] = &[
    "username",
    "password",
    "*username",
    "*password",
    "connection",
    "column",
    "where",
    "splitPk",
    "splitFactor",
    "session",
    "mandatoryEncoding",
    "checkSlave",
];
/// Rows are streamed whatever it says.
const READER_IGNORED: &[&str] = &["fetchSize"];
const READER_COPIED: &[&str] = &["column", "where", "splitPk", "splitFactor"];

fn reader(content: &Object<'_>, servers: &mut Servers<'_>) -> Option<Step> {
    let faults = servers.faults;
    let plugin = plugin(content, "reader", READERS, READER_KEYS, READER_IGNORED, faults)?;
    let parameter = &plugin.parameter;
    refuse_session(parameter, plugin.kind, faults);
    refuse_encoding(parameter, faults);
    if parameter.boolean("checkSlave") == Some(true) {
        faults.warn(&parameter.place("checkSlave"), "whether a replica lags behind is not checked");
    }
    let entries = connections(parameter, faults)?;
    if entries.is_empty() {
        faults.error(
            &parameter.place("connection"),
            "connection is required",
            "a list with jdbcUrl and table",
        );
        return None;
    }
    let sources: Vec<Source> = entries
        .iter()
        .enumerate()
        .filter_map(|(index, entry)| source(index, entry, &plugin, servers))
        .collect();
    if sources.len() < entries.len() {
        return None;
    }
    let mut out = copied(parameter, READER_COPIED);
    match sources.as_slice() {
        // DataWorks knows `connection` for MySQL only.
        [Source { datasource, key: "table", texts }]
            if plugin.kind == DatasourceKind::Starrocks && texts.len() == 1 =>
        {
            out.insert("datasource".into(), json!(datasource));
            out.insert("table".into(), json!(texts[0]));
        }
        several => {
            let entry = |one: &Source| json!({ "datasource": one.datasource, one.key: one.texts });
            out.insert("connection".into(), several.iter().map(entry).collect());
        }
    }
    Some(Step { kind: plugin.kind.as_str(), name: "Reader", category: "reader", parameter: out })
}

/// One entry of `connection`.
struct Source {
    datasource: String,
    /// `table` or `querySql`.
    key: &'static str,
    texts: Vec<String>,
}

fn source(
    index: usize,
    entry: &Object<'_>,
    plugin: &Plugin<'_>,
    servers: &mut Servers<'_>,
) -> Option<Source> {
    let faults = servers.faults;
    entry.refuse_unknown_keys(&["jdbcUrl", "table", "querySql"], &[]);
    let server = addresses(entry, faults).and_then(|addresses| one_server(entry, addresses, faults));
    let key = match (is_given(entry, "table"), is_given(entry, "querySql")) {
        (true, false) => "table",
        (false, true) => "querySql",
        (true, true) => {
            faults.error(&entry.place("querySql"), "table and querySql exclude each other", "remove one");
            return None;
        }
        (false, false) => {
            let message = format!("connection[{index}] needs table or querySql");
            faults.error(&entry.place("table"), message, "");
            return None;
        }
    };
    let texts = entry.texts(key).into_iter().map(|(_, text)| text).collect();
    Some(Source { datasource: servers.add(plugin, server?, None), key, texts })
}

/// DataX runs `session` for MySQL only. There it may change what is read, so it is not left out in silence.
fn refuse_session(parameter: &Object<'_>, kind: DatasourceKind, faults: &Faults) {
    let place = parameter.place("session");
    match (parameter.texts("session").is_empty(), kind) {
        (true, _) => {}
        (false, DatasourceKind::Starrocks) => {
            faults.warn(&place, "session is not run; DataX does not run it for StarRocks either");
        }
        (false, DatasourceKind::Mysql) => faults.unsupported(
            &place,
            "statements of session are not run",
            "remove session; a time zone is written as common.column.timeZone",
        ),
    }
}

/// DataX reads the bytes as text of that encoding; here the server turns all text into utf8mb4.
fn refuse_encoding(parameter: &Object<'_>, faults: &Faults) {
    let Some(encoding) = parameter.text("mandatoryEncoding") else { return };
    if !is_utf8(&encoding) {
        faults.unsupported(
            &parameter.place("mandatoryEncoding"),
            format!("mandatoryEncoding {encoding} is not supported: the server gives text as utf8mb4"),
            "remove it, and write convert(cast(name as binary) using gbk) for columns that are declared wrongly",
        );
    }
}

/// The entries of `connection`, which Addax writes without a list. `None`: told already.
fn connections<'a>(parameter: &Object<'a>, faults: &'a Faults) -> Option<Vec<Object<'a>>> {
    let place = parameter.place("connection");
    let list = match parameter.get("connection") {
        None => return Some(Vec::new()),
        Some(Value::Object(map)) => return Some(vec![Object::new(place, map, faults)]),
        Some(Value::Array(list)) => list,
        Some(_) => {
            faults.error(&place, "connection must be a list of objects", "");
            return None;
        }
    };
    let mut entries = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let place = format!("{place}/{index}");
        match value {
            Value::Object(map) => entries.push(Object::new(place, map, faults)),
            _ => faults.error(&place, "a connection must be an object", ""),
        }
    }
    (entries.len() == list.len()).then_some(entries)
}

const WRITER_KEYS: &[&str] = &[
    "username",
    "password",
    "*username",
    "*password",
    "jdbcUrl",
    "connection",
    "database",
    "selectedDatabase",
    "table",
    "column",
    "loadUrl",
    "loadProps",
    "preSql",
    "postSql",
    "maxBatchRows",
    "maxBatchSize",
    "labelPrefix",
    "strategyOnError",
];
/// Batches are streamed, so a partly filled one never waits.
const WRITER_IGNORED: &[&str] = &["flushInterval", "flushQueueLength"];
const WRITER_COPIED: &[&str] = &[
    "column",
    "loadUrl",
    "loadProps",
    "preSql",
    "postSql",
    "maxBatchRows",
    "maxBatchSize",
    "labelPrefix",
    "strategyOnError",
];

/// The writer step, and where its table stands in the file.
fn writer(content: &Object<'_>, servers: &mut Servers<'_>) -> Option<(Step, String)> {
    let faults = servers.faults;
    let plugin = plugin(content, "writer", WRITERS, WRITER_KEYS, WRITER_IGNORED, faults)?;
    let parameter = &plugin.parameter;
    let entries = connections(parameter, faults)?;
    for (index, entry) in entries.iter().enumerate() {
        entry.refuse_unknown_keys(&["jdbcUrl", "selectedDatabase", "table"], &[]);
        if index > 0 {
            let place = format!("{}/{index}", parameter.place("connection"));
            faults.warn(&place, "DataX writes to the first connection only, and so does the job");
        }
    }
    let first = entries.first();
    let in_first = |key: &str| first.filter(|entry| is_given(entry, key));
    let holder = in_first("jdbcUrl").or_else(|| Some(parameter).filter(|one| is_given(one, "jdbcUrl")));
    let address = match holder {
        Some(holder) => {
            let mut addresses = addresses(holder, faults)?;
            if addresses.len() > 1 {
                faults.warn(&holder.place("jdbcUrl"), "a writer has one address: the first is used");
                addresses.truncate(1);
            }
            one_server(holder, addresses, faults)
        }
        None => server_of_load_url(parameter, faults),
    };
    let holder = in_first("table").unwrap_or(parameter);
    let mut tables = holder.texts("table").into_iter();
    let table = tables.next();
    if tables.next().is_some() {
        faults.warn(&holder.place("table"), "DataX writes to the first table only, and so does the job");
    }
    // The order of StarRocksWriterOptions.java: a later one never overrides an earlier one.
    let database = first
        .and_then(|entry| entry.text("selectedDatabase"))
        .or_else(|| parameter.text("selectedDatabase"))
        .or_else(|| parameter.text("database"));
    let datasource = servers.add(&plugin, address?, database.as_deref());
    let mut out = copied(parameter, WRITER_COPIED);
    out.insert("datasource".into(), json!(datasource));
    out.extend(database.map(|database| ("selectedDatabase".to_owned(), json!(database))));
    let place = table.as_ref().map_or_else(|| holder.place("table"), |(place, _)| place.clone());
    out.extend(table.map(|(_, table)| ("table".to_owned(), json!(table))));
    out.entry("loadProps").or_insert_with(|| json!({}));
    Some((Step { kind: plugin.kind.as_str(), name: "Writer", category: "writer", parameter: out }, place))
}

/// DataX can do without `jdbcUrl`; statements and the catalogue cannot.
fn server_of_load_url(parameter: &Object<'_>, faults: &Faults) -> Option<Server> {
    let urls = parameter.texts("loadUrl").into_iter();
    let urls = urls.filter_map(|(_, text)| load_url::parse_list(&text, None).ok()).flatten();
    let hosts: Vec<String> = urls.filter_map(|url| Some(load_url::host(&url)?.to_owned())).collect();
    let place = parameter.place("jdbcUrl");
    if hosts.is_empty() {
        faults.error(&place, "jdbcUrl is required", "e.g. jdbc:mysql://10.0.0.1:9030/");
        return None;
    }
    faults.warn(&place, format!("no jdbcUrl: the query port is taken to be {QUERY_PORT} of loadUrl's hosts"));
    Some(Server { hosts, port: QUERY_PORT, database: None, ssl: SslMode::Disable })
}

const QUERY_PORT: u16 = 9030;

fn copied(parameter: &Object<'_>, keys: &[&str]) -> Map<String, Value> {
    let entries = parameter.entries().filter(|(key, _)| keys.contains(key));
    entries.map(|(key, value)| (key.to_owned(), value.clone())).collect()
}

fn is_given(holder: &Object<'_>, key: &str) -> bool {
    holder.get(key).is_some_and(|value| !is_empty(value))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        other => is_blank(other),
    }
}

/// A data source before it has a name and an account.
struct Server {
    hosts: Vec<String>,
    port: u16,
    database: Option<String>,
    ssl: SslMode,
}

/// The addresses of `jdbcUrl`, which readers have as a list and writers as a text. `None`: told already.
fn addresses(holder: &Object<'_>, faults: &Faults) -> Option<Vec<Address>> {
    let texts = holder.texts("jdbcUrl");
    if texts.is_empty() {
        faults.error(&holder.place("jdbcUrl"), "jdbcUrl is required", "e.g. jdbc:mysql://10.0.0.1:3306/db");
        return None;
    }
    let mut addresses = Vec::with_capacity(texts.len());
    let count = texts.len();
    for (place, text) in texts {
        match jdbc::parse(&text) {
            Ok(address) => addresses.push(address),
            Err(error @ InvalidAddress::Scheme(_)) => faults.unsupported(&place, error.to_string(), ""),
            Err(error) => {
                let hint = match error {
                    InvalidAddress::Account => "write the account as username and password",
                    InvalidAddress::Parameter => "write the address itself, or pass --param",
                    _ => "",
                };
                faults.error(&place, error.to_string(), hint);
            }
        }
    }
    (addresses.len() == count).then_some(addresses)
}

/// One server with several hosts to try in order, as far as they differ in nothing else.
fn one_server(holder: &Object<'_>, addresses: Vec<Address>, faults: &Faults) -> Option<Server> {
    let place = holder.place("jdbcUrl");
    let database = addresses.first()?.database.clone();
    let port = addresses.first()?.hosts.first()?.1;
    let ssl = match addresses.iter().map(|address| address.ssl).max().unwrap_or_default() {
        Ssl::Disable => SslMode::Disable,
        Ssl::Prefer => SslMode::Prefer,
        Ssl::Require => {
            faults.warn(
                &place,
                "TLS is used if the server offers it; ssl = \"verify-ca\" of a data source insists",
            );
            SslMode::Prefer
        }
        Ssl::Verify => {
            faults.unsupported(
                &place,
                "verifying the server's certificate needs the certificate of its authority",
                "remove it here, convert the file, and set ssl = \"verify-ca\" and ssl_ca in the data source",
            );
            return None;
        }
    };
    let (mut hosts, mut others, mut unused) = (Vec::new(), 0, Vec::new());
    for address in addresses {
        unused.extend(address.unused);
        for (host, its_port) in address.hosts {
            if its_port != port || address.database != database {
                others += 1;
            } else if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
    }
    if others > 0 {
        let message = format!("{others} further addresses have another port or database and are not used");
        faults.warn(&place, message);
    }
    if !unused.is_empty() {
        faults.warn(&place, format!("not used: {}", unused.join(", ")));
    }
    Some(Server { hosts, port, database, ssl })
}

/// The data sources found so far.
struct Servers<'a> {
    faults: &'a Faults,
    sources: Vec<Datasource>,
}

impl Servers<'_> {
    /// The name of the data source, an earlier one if it is the same. `database` is for the name, where the address
    /// has none.
    fn add(&mut self, plugin: &Plugin<'_>, server: Server, database: Option<&str>) -> String {
        let base = {
            let database = server.database.as_deref().or(database);
            name(plugin.kind, database, &server)
        };
        let mut source = Datasource {
            name: String::new(),
            kind: plugin.kind,
            hosts: server.hosts,
            port: server.port,
            load_urls: Vec::new(),
            database: server.database,
            username: plugin.username.clone(),
            password: Password::Inline(plugin.password.clone()),
            ssl: server.ssl,
            address_map: std::collections::BTreeMap::new(),
            allowed_backends: None,
        };
        for number in 1.. {
            source.name = if number == 1 { base.clone() } else { format!("{base}_{number}") };
            match self.sources.iter().find(|known| known.name == source.name) {
                Some(known) if *known == source => break,
                Some(_) => {}
                None => {
                    self.sources.push(source.clone());
                    break;
                }
            }
        }
        source.name
    }
}

/// `shop_10_1_0_5`: the database at the first host, so that files which are merged agree on their names.
fn name(kind: DatasourceKind, database: Option<&str>, server: &Server) -> String {
    let usual = match kind {
        DatasourceKind::Mysql => 3306,
        DatasourceKind::Starrocks => QUERY_PORT,
    };
    let host = server.hosts.first().map_or("", String::as_str);
    let port = if server.port == usual { String::new() } else { format!("_{}", server.port) };
    let text = format!("{}_{host}{port}", database.unwrap_or(kind.as_str()));
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn settings(root: &Object<'_>, job: &Object<'_>, faults: &Faults) -> Map<String, Value> {
    let given = job.object("setting");
    let mut setting: Map<String, Value> = given.as_ref().map_or_else(Map::new, |given| {
        given.entries().map(|(key, value)| (key.to_owned(), value.clone())).collect()
    });
    // What is not an object is left for the script's own check.
    if setting.get("speed").is_none_or(Value::is_object) {
        let speed = given.as_ref().and_then(|given| given.object("speed"));
        let speed = speeds(speed.as_ref(), &channel_limits(root), faults);
        if speed.is_empty() {
            setting.remove("speed")
        } else {
            setting.insert("speed".into(), speed.into())
        };
    }
    warn_of_rest(
        root,
        "core",
        &["/core/transport/channel/speed/byte", "/core/transport/channel/speed/record"],
        faults,
    );
    warn_of_rest(root, "common", &["/common/column/timeZone"], faults);
    let zone = root.get("common").and_then(|common| common.pointer("/column/timeZone"));
    if let Some(zone) = zone.filter(|zone| !zone.is_null()) {
        setting.insert("common".into(), json!({ "column": { "timeZone": zone } }));
    }
    setting
}

/// `core.transport.channel.speed`: limits of each channel.
struct ChannelLimits {
    bytes: Option<u64>,
    records: Option<u64>,
}

fn channel_limits(root: &Object<'_>) -> ChannelLimits {
    let limit = |key: &str| {
        let core = root.get("core")?;
        positive(core.pointer(&format!("/transport/channel/speed/{key}"))?)
    };
    ChannelLimits { bytes: limit("byte"), records: limit("record") }
}

fn positive(value: &Value) -> Option<u64> {
    integer(value).filter(|number| *number > 0)
}

const DEFAULT_CONCURRENT: u64 = 3;
const MIB: u64 = 1 << 20;

/// `channel` becomes `concurrent`; a limit in bytes becomes that of the whole job. What cannot be read stays as it is.
fn speeds(given: Option<&Object<'_>>, channel: &ChannelLimits, faults: &Faults) -> Map<String, Value> {
    let mut speed: Map<String, Value> = given.map_or_else(Map::new, |given| {
        given.entries().map(|(key, value)| (key.to_owned(), value.clone())).collect()
    });
    let place =
        |key: &str| given.map_or_else(|| format!("/job/setting/speed/{key}"), |given| given.place(key));
    if channel.records.is_some() {
        let message = "a limit in records per second is not supported: rows differ in size";
        faults.unsupported("/core/transport/channel/speed/record", message, "limit bytes");
    }
    let total = speed.get("byte").and_then(positive);
    let channels = speed.get("channel").and_then(positive);
    match (total, channels, channel.bytes) {
        (Some(_), Some(channels), _) => faults.warn(
            &place("channel"),
            format!(
                "DataX ignores channel when byte or record is set; using concurrent = {channels} and byte as the limit of the job"
            ),
        ),
        (Some(_), None, None) => faults.warn(
            &place("byte"),
            "DataX wants core.transport.channel.speed.byte beside it; here it is the limit of the whole job",
        ),
        _ => {}
    }
    let concurrent = channels.or_else(|| Some((total? / channel.bytes?).max(1)));
    let has_no_total = speed.get("byte").is_none_or(is_no_limit);
    let each = channel.bytes.filter(|_| has_no_total);
    let limit = total.or_else(|| each?.checked_mul(concurrent.unwrap_or(DEFAULT_CONCURRENT)));
    if let Some(concurrent) = concurrent
        && !speed.contains_key("concurrent")
    {
        speed.remove("channel");
        speed.insert("concurrent".into(), concurrent.into());
    }
    match limit {
        // DataWorks limits in whole megabytes per second.
        Some(limit) if limit.is_multiple_of(MIB) && !speed.contains_key("throttle") => {
            speed.remove("byte");
            speed.insert("throttle".into(), true.into());
            speed.insert("mbps".into(), (limit / MIB).into());
        }
        Some(limit) => drop(speed.insert("byte".into(), limit.into())),
        None => {}
    }
    speed
}

/// Names what of `core` or `common` has no effect.
fn warn_of_rest(root: &Object<'_>, key: &str, used: &[&str], faults: &Faults) {
    const SHOWN: usize = 5;
    let mut rest = Vec::new();
    if let Some(value) = root.get(key) {
        leaves(value, &root.place(key), &mut rest);
    }
    rest.retain(|leaf| !used.contains(&leaf.as_str()));
    let more = rest.len().saturating_sub(SHOWN);
    rest.truncate(SHOWN);
    if !rest.is_empty() {
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        faults.warn(&root.place(key), format!("not used here: {}{more}", rest.join(", ")));
    }
}

fn leaves(value: &Value, pointer: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                leaves(value, &format!("{pointer}/{}", super::fields::escape(key)), found);
            }
        }
        _ => found.push(pointer.to_owned()),
    }
}

#[cfg(test)]
mod tests;
