//! Reads a data source file: TOML, one table per data source. Pure, and tells every fault at once. Messages never show
//! a value that may be a secret.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{AllowedBackend, Datasource, DatasourceKind, Password, Secret, SslMode};
use crate::load_url;
use crate::nearest::did_you_mean;
use crate::problem::{Code, Problem};

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

const KEYS: &[&str] = &[
    "type",
    "host",
    "port",
    "load_url",
    "database",
    "username",
    "password",
    "password_file",
    "ssl",
    "ssl_ca",
    "address_map",
    "allowed_backends",
];

const FE_HTTP_PORT: u16 = 8030;

/// All entries, or all faults.
pub(super) fn parse(text: &str, env: Env<'_>) -> Result<BTreeMap<String, Datasource>, Vec<Problem>> {
    let file: Table = toml::from_str(text).map_err(|error| vec![syntax_problem(text, &error)])?;
    let mut entries = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, value) in file {
        let entry = match value {
            Value::Table(table) => Entry::new(&name, table, env).read(),
            _ => Err(vec![
                problem(&format!("{name} stands outside of a data source"))
                    .at(name.clone())
                    .hint("start an entry with its name in brackets, e.g. [warehouse]"),
            ]),
        };
        match entry {
            Ok(entry) => {
                entries.insert(name, entry);
            }
            Err(faults) => problems.extend(faults),
        }
    }
    if problems.is_empty() { Ok(entries) } else { Err(problems) }
}

fn problem(message: &str) -> Problem {
    Problem::new(Code::InvalidSettings, message)
}

/// The parser's own rendering quotes the line, which may hold a password: only its message and the position are used.
fn syntax_problem(text: &str, error: &toml::de::Error) -> Problem {
    let place = error.span().map_or_else(String::new, |span| {
        let before = text.get(..span.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        format!("line {line}, column {column}")
    });
    let message = error.message().lines().next().unwrap_or("it cannot be read");
    problem(&format!("not a TOML file: {message}")).at(place)
}

/// One table being read: values are taken out of it, faults collected.
struct Entry<'a> {
    name: &'a str,
    table: Table,
    env: Env<'a>,
    problems: Vec<Problem>,
}

impl<'a> Entry<'a> {
    fn new(name: &'a str, table: Table, env: Env<'a>) -> Self {
        Self { name, table, env, problems: Vec::new() }
    }

    fn read(mut self) -> Result<Datasource, Vec<Problem>> {
        self.refuse_unknown_keys();
        let kind = self.kind();
        let port = self.port(kind.unwrap_or(DatasourceKind::Starrocks));
        let hosts = self.hosts();
        let load_urls = self.load_urls();
        let database = self.text("database").filter(|text| !text.is_empty());
        let username = self.required_text("username", "the account to log in with");
        let password = self.password();
        let ssl = self.ssl();
        let address_map = self.address_map();
        let allowed_backends = self.allowed_backends();
        if kind == Some(DatasourceKind::Mysql) {
            let loads = [!load_urls.is_empty(), !address_map.is_empty(), allowed_backends.is_some()];
            for (key, given) in ["load_url", "address_map", "allowed_backends"].into_iter().zip(loads) {
                if given {
                    self.fault(key, "has no meaning for type \"mysql\"", "remove it");
                }
            }
        }
        match (kind, self.problems.is_empty()) {
            (Some(kind), true) => Ok(Datasource {
                name: self.name.to_owned(),
                kind,
                hosts,
                port,
                load_urls,
                database,
                username,
                password,
                ssl,
                address_map,
                allowed_backends,
            }),
            _ => Err(self.problems),
        }
    }

    fn fault(&mut self, key: &str, what: &str, hint: &str) {
        self.problems.push(problem(&format!("{key} {what}")).at(format!("[{}].{key}", self.name)).hint(hint));
    }

    fn refuse_unknown_keys(&mut self) {
        let unknown: Vec<String> =
            self.table.keys().filter(|key| !KEYS.contains(&key.as_str())).cloned().collect();
        for key in unknown {
            let guess = did_you_mean(&key, KEYS.iter().copied());
            self.fault(&key, "is not a key of a data source", &guess);
        }
    }

    fn kind(&mut self) -> Option<DatasourceKind> {
        let given = self.required_text("type", "starrocks or mysql");
        match given.as_str() {
            "starrocks" => Some(DatasourceKind::Starrocks),
            "mysql" | "mariadb" => Some(DatasourceKind::Mysql),
            "" => None,
            other => {
                let what = format!("\"{other}\" is not known");
                self.fault("type", &what, "use \"starrocks\", or \"mysql\" for MySQL and MariaDB");
                None
            }
        }
    }

    fn port(&mut self, kind: DatasourceKind) -> u16 {
        let default = match kind {
            DatasourceKind::Mysql => 3306,
            DatasourceKind::Starrocks => 9030,
        };
        let given = match self.table.remove("port") {
            None => return default,
            Some(Value::Integer(port)) => u16::try_from(port).ok(),
            Some(Value::String(text)) => self.expand("port", &text).and_then(|text| text.parse().ok()),
            Some(_) => None,
        };
        given.filter(|port| *port > 0).unwrap_or_else(|| {
            self.fault("port", "must be a number from 1 to 65535", "");
            default
        })
    }

    fn hosts(&mut self) -> Vec<String> {
        let hosts = self.texts("host").unwrap_or_default();
        if hosts.is_empty() {
            self.fault("host", "is required", "the query endpoint, or a list of them that is tried in order");
        }
        for host in &hosts {
            if host.contains('/') || host.matches(':').count() == 1 {
                let what = format!("\"{host}\" is not a plain host name or address");
                self.fault("host", &what, "write the port in `port`, without a scheme");
            }
        }
        hosts
    }

    fn load_urls(&mut self) -> Vec<String> {
        let mut urls = Vec::new();
        for text in self.texts("load_url").unwrap_or_default() {
            match load_url::parse_list(&text, Some(FE_HTTP_PORT)) {
                Ok(parsed) => urls.extend(parsed),
                Err(error) => self.fault(
                    "load_url",
                    &format!("cannot be used: {error}"),
                    "host:port of an FE's HTTP port",
                ),
            }
        }
        urls
    }

    fn password(&mut self) -> Password {
        let inline = self.text("password");
        let file = self.text("password_file");
        match (inline, file) {
            (Some(_), Some(_)) => {
                self.fault("password_file", "and password exclude each other", "keep one of them");
                Password::Inline(Secret::default())
            }
            (_, Some(file)) => Password::File(file.into()),
            (inline, None) => Password::Inline(Secret::new(inline.unwrap_or_default())),
        }
    }

    fn ssl(&mut self) -> SslMode {
        let mode = self.text("ssl");
        let ca = self.text("ssl_ca");
        match (mode.as_deref(), ca) {
            (None | Some("disable"), None) => SslMode::Disable,
            (Some("prefer"), None) => SslMode::Prefer,
            (None | Some("verify-ca"), Some(ca)) => SslMode::VerifyCa { ca: ca.into() },
            (Some("verify-ca"), None) => {
                self.fault(
                    "ssl_ca",
                    "is required by ssl = \"verify-ca\"",
                    "the path of the CA's certificate",
                );
                SslMode::Disable
            }
            (Some("disable" | "prefer"), Some(_)) => {
                self.fault("ssl_ca", "is used with ssl = \"verify-ca\" only", "");
                SslMode::Disable
            }
            (Some(other), _) => {
                let what = format!("\"{other}\" is not known");
                self.fault("ssl", &what, "use disable, prefer or verify-ca");
                SslMode::Disable
            }
        }
    }

    fn address_map(&mut self) -> BTreeMap<String, String> {
        let table = match self.table.remove("address_map") {
            None => return BTreeMap::new(),
            Some(Value::Table(table)) => table,
            Some(_) => Table::from_iter([(String::new(), Value::Boolean(false))]),
        };
        let hint = "e.g. { \"be-0.be.svc:8040\" = \"10.1.2.3:18040\" }";
        let mut map = BTreeMap::new();
        for (from, to) in table {
            let to = match to {
                Value::String(to) => self.expand("address_map", &to),
                _ => None,
            };
            match to {
                Some(to) if is_address(&from) && is_address(&to) => {
                    map.insert(from, to);
                }
                _ => self.fault("address_map", "must lead from host:port to host:port", hint),
            }
        }
        map
    }

    fn allowed_backends(&mut self) -> Option<Vec<AllowedBackend>> {
        let texts = self.texts("allowed_backends")?;
        Some(texts.into_iter().map(allowed_backend).collect())
    }

    fn required_text(&mut self, key: &str, hint: &str) -> String {
        let text = self.text(key).unwrap_or_default();
        if text.is_empty() && !self.faulted(key) {
            self.fault(key, "is required", hint);
        }
        text
    }

    fn faulted(&self, key: &str) -> bool {
        let place = format!("[{}].{key}", self.name);
        self.problems.iter().any(|problem| problem.place == place)
    }

    /// Takes a string, its variables replaced.
    fn text(&mut self, key: &str) -> Option<String> {
        match self.table.remove(key)? {
            Value::String(text) => self.expand(key, &text),
            _ => {
                self.fault(key, "must be a string", "");
                None
            }
        }
    }

    /// Takes a string or a list of strings.
    fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        let values = match self.table.remove(key)? {
            Value::Array(values) => values,
            single => vec![single],
        };
        let mut texts = Vec::new();
        for value in values {
            match value {
                Value::String(text) => texts.extend(self.expand(key, &text)),
                _ => self.fault(key, "must be a string or a list of strings", ""),
            }
        }
        Some(texts.into_iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect())
    }

    /// Replaces `${NAME}` from the environment. A `$` before anything else stands for itself: passwords have them.
    fn expand(&mut self, key: &str, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            out.push_str(&rest[..start]);
            rest = &rest[start..];
            match variable_name(rest) {
                Some(name) => {
                    let Some(value) = (self.env)(name) else {
                        let what = format!("needs the environment variable {name}, which is not set");
                        self.fault(key, &what, "set it for this process, or write the value");
                        return None;
                    };
                    out.push_str(&value);
                    rest = &rest[name.len() + 3..];
                }
                None => {
                    out.push_str("${");
                    rest = &rest[2..];
                }
            }
        }
        out.push_str(rest);
        Some(out)
    }
}

/// Whether something in the text would be replaced from the environment.
pub(super) fn names_a_variable(text: &str) -> bool {
    text.match_indices("${").any(|(at, _)| variable_name(&text[at..]).is_some())
}

/// `NAME` of a text that begins with `${NAME}`.
fn variable_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix("${")?.split_once('}')?.0;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (plain && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')).then_some(name)
}

fn is_address(text: &str) -> bool {
    !text.contains("://") && load_url::parse(text, None).is_ok()
}

/// A network in CIDR form, a single address, or else a host name.
fn allowed_backend(text: String) -> AllowedBackend {
    if let Ok(network) = text.parse() {
        return AllowedBackend::Network(network);
    }
    match text.parse::<std::net::IpAddr>() {
        Ok(address) => AllowedBackend::Network(address.into()),
        Err(_) => AllowedBackend::Host(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "SR_PASSWORD").then(|| "s3cret$".to_owned())
    }

    fn faults(text: &str) -> Vec<String> {
        parse(text, &env).expect_err("the file is bad").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_key_is_understood() {
        let text = r#"
            [sr]
            type = "starrocks"
            host = ["fe1", "fe2"]
            load_url = ["fe1", "http://fe2:8031"]
            database = "dw"
            username = "loader"
            password = "${SR_PASSWORD}"
            ssl = "verify-ca"
            ssl_ca = "/etc/ca.pem"
            address_map = { "be-0.be.svc:8040" = "10.1.2.3:18040" }
            allowed_backends = ["10.0.0.0/8", "192.168.1.7", "be.example"]
            [my]
            type = "mysql"
            host = "db"
            port = 3307
            username = "u"
            password_file = "/run/secrets/my"
        "#;
        let entries = parse(text, &env).expect("a good file");
        let sr = &entries["sr"];
        assert_eq!((sr.kind, sr.port), (DatasourceKind::Starrocks, 9030));
        assert_eq!(sr.hosts, ["fe1", "fe2"]);
        assert_eq!(sr.load_urls, ["http://fe1:8030", "http://fe2:8031"]);
        assert_eq!(sr.password, Password::Inline(Secret::new("s3cret$")));
        assert_eq!(sr.ssl, SslMode::VerifyCa { ca: "/etc/ca.pem".into() });
        assert_eq!(sr.address_map["be-0.be.svc:8040"], "10.1.2.3:18040");
        let allowed = sr.allowed_backends.as_deref().expect("they are given");
        assert!(matches!(
            allowed,
            [AllowedBackend::Network(_), AllowedBackend::Network(_), AllowedBackend::Host(_)]
        ));
        let my = &entries["my"];
        assert_eq!((my.kind, my.port), (DatasourceKind::Mysql, 3307));
        assert_eq!(my.password, Password::File("/run/secrets/my".into()));
    }

    #[test]
    fn all_faults_are_told_at_once_with_their_places() {
        let told = faults(
            "stray = 1\n[a]\ntype = 'oracle'\nhots = 'x'\nport = 70000\npassword = '${NOT_SET}'\n[b]\ntype = 'mysql'\n\
             host = 'db:3306'\nusername = 'u'\nload_url = 'fe:8030'\n",
        )
        .join("\n");
        for part in [
            "stray: stray stands outside of a data source",
            "[a].hots: hots is not a key of a data source (did you mean `host`?)",
            "[a].type: type \"oracle\" is not known",
            "[a].port: port must be a number from 1 to 65535",
            "[a].host: host is required",
            "[a].username: username is required",
            "[a].password: password needs the environment variable NOT_SET, which is not set",
            "[b].host: host \"db:3306\" is not a plain host name",
            "[b].load_url: load_url has no meaning for type \"mysql\"",
        ] {
            assert!(told.contains(part), "`{part}` is not in:\n{told}");
        }
    }

    #[test]
    fn a_syntax_error_tells_its_position_and_no_secret() {
        let told = faults("[a]\ntype = \"mysql\"\npassword = \"hidden\" x\n");
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("line 3, column "), "{told:?}");
        assert!(!told[0].contains("hidden"), "{told:?}");
    }

    #[test]
    fn a_dollar_that_names_no_variable_stands_for_itself() {
        let text = "[a]\ntype = 'mysql'\nhost = 'db'\nusername = 'u'\npassword = 'p$1${}${x'\n";
        let entries = parse(text, &env).expect("a good file");
        assert_eq!(entries["a"].password, Password::Inline(Secret::new("p$1${}${x")));
    }
}
