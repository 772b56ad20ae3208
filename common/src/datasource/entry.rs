//! A data source as an entry of a data source file: what [`super::file`] reads back. Pure.

use toml::Value;

use super::file::names_a_variable;
use super::{AllowedBackend, Datasource, Password, SslMode};

/// The text of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// A table in brackets and its keys, each on a line.
    pub text: String,
    /// The environment variable that has to hold the password, where the text refers to one.
    pub variable: Option<String>,
}

impl Datasource {
    /// With its password only where that is asked for and there is one; else `${NAME_PASSWORD}` stands in its place.
    pub fn entry(&self, with_password: bool) -> Entry {
        let mut lines = vec![
            format!("[{}]", key(&self.name)),
            line("type", self.kind.as_str()),
            line("host", one_or_all(&self.hosts)),
            line("port", i64::from(self.port)),
        ];
        if !self.load_urls.is_empty() {
            lines.push(line("load_url", self.load_urls.clone()));
        }
        lines.extend(self.database.as_deref().map(|database| line("database", database)));
        lines.push(line("username", self.username.as_str()));
        let mut variable = None;
        lines.push(match &self.password {
            Password::File(path) => line("password_file", path.display().to_string()),
            Password::Inline(secret) => {
                let text = secret.expose();
                // In the file such a text would be replaced.
                let is_writable = text.is_empty() || with_password && !names_a_variable(text);
                if is_writable {
                    line("password", text)
                } else {
                    let name = variable.insert(variable_name(&self.name));
                    line("password", format!("${{{name}}}"))
                }
            }
        });
        match &self.ssl {
            SslMode::Disable => {}
            SslMode::Prefer => lines.push(line("ssl", "prefer")),
            SslMode::VerifyCa { ca } => {
                lines.extend([line("ssl", "verify-ca"), line("ssl_ca", ca.display().to_string())]);
            }
        }
        if !self.address_map.is_empty() {
            let map = self.address_map.iter().map(|(from, to)| (from.clone(), Value::from(to.as_str())));
            lines.push(line("address_map", Value::Table(map.collect())));
        }
        if let Some(allowed) = &self.allowed_backends {
            let texts = allowed.iter().map(|backend| match backend {
                AllowedBackend::Network(network) => network.to_string(),
                AllowedBackend::Host(host) => host.clone(),
            });
            lines.push(line("allowed_backends", texts.collect::<Vec<_>>()));
        }
        Entry { text: lines.join("\n") + "\n", variable }
    }
}

fn line(key: &str, value: impl Into<Value>) -> String {
    format!("{key} = {}", value.into())
}

fn one_or_all(texts: &[String]) -> Value {
    match texts {
        [one] => one.as_str().into(),
        all => all.to_vec().into(),
    }
}

/// A table's name, in quotes where TOML wants them.
fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.chars().all(is_bare) {
        name.to_owned()
    } else {
        Value::from(name).to_string()
    }
}

/// `SHOP_PASSWORD` for `shop`.
fn variable_name(datasource: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = datasource.chars().map(upper).collect();
    let digit = if name.starts_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
    format!("{digit}{name}_PASSWORD")
}

#[cfg(test)]
mod tests {
    use super::super::{DatasourceKind, Datasources, Secret};
    use super::*;

    fn source(password: &str) -> Datasource {
        Datasource {
            name: "dw_10.0.0.1".into(),
            kind: DatasourceKind::Starrocks,
            hosts: vec!["fe1".into(), "fe2".into()],
            port: 9030,
            load_urls: vec!["http://fe1:8030".into()],
            database: Some("d\"w\\".into()),
            username: "lo'ader".into(),
            password: Password::Inline(Secret::new(password)),
            ssl: SslMode::VerifyCa { ca: "/etc/ca.pem".into() },
            address_map: [("be-0:8040".to_owned(), "10.1.2.3:18040".to_owned())].into(),
            allowed_backends: Some(vec![
                AllowedBackend::Network("10.0.0.0/8".parse().expect("a network")),
                AllowedBackend::Host("be.example".into()),
            ]),
        }
    }

    fn read_back(entry: &Entry, password: &str) -> Datasource {
        let env = |name: &str| (Some(name) == entry.variable.as_deref()).then(|| password.to_owned());
        let sources = Datasources::parse(&entry.text, &env).unwrap_or_else(|problems| panic!("{problems:?}"));
        sources.get("dw_10.0.0.1").expect("the entry has its name").clone()
    }

    #[test]
    fn an_entry_is_read_back_as_it_was() {
        for password in ["", "p$1\"'\\ \n", "${SHELL}", "x"] {
            for with_password in [false, true] {
                let source = source(password);
                let entry = source.entry(with_password);
                assert_eq!(read_back(&entry, password), source, "{}", entry.text);
            }
        }
    }

    #[test]
    fn a_password_is_written_only_where_it_is_asked_for() {
        let without = source("hidden").entry(false);
        assert_eq!(without.variable.as_deref(), Some("DW_10_0_0_1_PASSWORD"));
        assert!(!without.text.contains("hidden"), "{}", without.text);
        let with = source("hidden").entry(true);
        assert!(with.variable.is_none() && with.text.contains("password = \"hidden\""), "{}", with.text);
        assert_eq!(source("").entry(false).variable, None, "there is nothing to hide");
    }
}
