//! JDBC addresses, which DataX files have in place of data sources. Pure. A message never shows more of an address than
//! its scheme and hosts: the rest may hold an account.

/// What `jdbc:mysql://host:port,host:port/database?key=value&...` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Never empty; without square brackets.
    pub(super) hosts: Vec<(String, u16)>,
    pub(super) database: Option<String>,
    pub(super) ssl: Ssl,
    /// Names of parameters that may matter and have no counterpart here.
    pub(super) unused: Vec<String>,
}

/// What an address asks of TLS, the strictest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Ssl {
    #[default]
    Disable,
    /// If the server offers it.
    Prefer,
    /// Whether the server offers it or not.
    Require,
    /// With a certificate that is verified.
    Verify,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidAddress {
    #[error("unsupported JDBC URL {0}; expected jdbc:mysql://host:port/db")]
    Scheme(String),
    #[error("the JDBC URL names no plain host and port; expected jdbc:mysql://host:port/db")]
    Host,
    #[error("the JDBC URL holds an account")]
    Account,
    #[error("the JDBC URL holds a parameter ${{...}} without a value")]
    Parameter,
}

const SCHEMES: &[&str] = &["jdbc:mysql://", "jdbc:mariadb://"];

/// Where the driver connects without a port, whatever server is there.
const DEFAULT_PORT: u16 = 3306;

/// What concerns the Java driver alone, or is so here anyway.
const WITHOUT_MEANING: &[&str] = &[
    "characterencoding",
    "useunicode",
    "connecttimeout",
    "sockettimeout",
    "autoreconnect",
    "rewritebatchedstatements",
    "tinyint1isbit",
    "yearisdatetype",
    "allowpublickeyretrieval",
    "usecursorfetch",
    "useserverprepstmts",
    "cacheprepstmts",
    "nullcatalogmeanscurrent",
    "tcpkeepalive",
];

pub(super) fn parse(url: &str) -> Result<Address, InvalidAddress> {
    let url = url.trim();
    let lower = url.to_ascii_lowercase();
    let Some(scheme) = SCHEMES.iter().find(|scheme| lower.starts_with(**scheme)) else {
        return Err(InvalidAddress::Scheme(shown_scheme(url)));
    };
    let rest = &url[scheme.len()..];
    if rest.contains("${") || rest.starts_with('$') {
        return Err(InvalidAddress::Parameter);
    }
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = address.split_once('/').unwrap_or((address, ""));
    if authority.contains('@') {
        return Err(InvalidAddress::Account);
    }
    let hosts = authority.split(',').map(host_and_port).collect::<Option<Vec<_>>>();
    let hosts = hosts.ok_or(InvalidAddress::Host)?;
    let database = database.trim_end_matches('/');
    if database.contains('/') {
        return Err(InvalidAddress::Host);
    }
    let database = (!database.is_empty()).then(|| database.to_owned());
    let mut parsed = Address { hosts, database, ssl: Ssl::default(), unused: Vec::new() };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        parsed.parameter(key, value)?;
    }
    Ok(parsed)
}

impl Address {
    fn parameter(&mut self, key: &str, value: &str) -> Result<(), InvalidAddress> {
        let is_true = value.eq_ignore_ascii_case("true");
        let asked = match (key.to_ascii_lowercase().as_str(), value.to_ascii_uppercase().as_str()) {
            ("user" | "password" | "password1", _) => return Err(InvalidAddress::Account),
            ("usessl", _) if is_true => Ssl::Prefer,
            ("requiressl", _) if is_true => Ssl::Require,
            ("verifyservercertificate", _) if is_true => Ssl::Verify,
            ("sslmode", "PREFERRED" | "TRUST") => Ssl::Prefer,
            ("sslmode", "REQUIRED") => Ssl::Require,
            ("sslmode", "VERIFY_CA" | "VERIFY_IDENTITY" | "VERIFY-CA" | "VERIFY-FULL") => Ssl::Verify,
            ("usessl" | "requiressl" | "verifyservercertificate" | "sslmode", _) => Ssl::Disable,
            (known, _) if WITHOUT_MEANING.contains(&known) => Ssl::Disable,
            _ => {
                self.unused.push(key.to_owned());
                Ssl::Disable
            }
        };
        self.ssl = self.ssl.max(asked);
        Ok(())
    }
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some(""))?),
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_address =
        text.starts_with('[') && host.chars().all(|c| c.is_ascii_hexdigit() || ":.%".contains(c));
    if host.is_empty() || !(is_address || host.chars().all(is_plain)) {
        return None;
    }
    let port = if port.is_empty() { DEFAULT_PORT } else { port.parse().ok().filter(|port| *port > 0)? };
    Some((host.to_owned(), port))
}

/// `jdbc:oracle:...`, whatever follows.
fn shown_scheme(url: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+');
    let mut words = url.split(':');
    match (words.next(), words.next()) {
        (Some("jdbc"), Some(product)) if product.chars().all(is_word) && product.len() <= 20 => {
            format!("jdbc:{product}:...")
        }
        _ => "(without jdbc: in front)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Address {
        parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn hosts_ports_and_the_database_are_found() {
        let one = address("jdbc:mysql://10.1.0.5:3306/shop?useSSL=false");
        assert_eq!(one.hosts, [("10.1.0.5".to_owned(), 3306)]);
        assert_eq!((one.database.as_deref(), one.ssl, one.unused.len()), (Some("shop"), Ssl::Disable, 0));
        let several = address(" JDBC:MySQL://a:9030,b_1,[::1]:9031/ ");
        assert_eq!(several.hosts, [("a".into(), 9030), ("b_1".into(), 3306), ("::1".into(), 9031)]);
        assert_eq!(several.database, None);
        assert_eq!(address("jdbc:mariadb://h").database, None);
    }

    #[test]
    fn the_strictest_word_about_tls_counts_and_what_may_matter_is_named() {
        let ssl = |query: &str| address(&format!("jdbc:mysql://h/d?{query}")).ssl;
        assert_eq!(ssl("useSSL=true"), Ssl::Prefer);
        assert_eq!(ssl("useSSL=true&requireSSL=true&useUnicode=true"), Ssl::Require);
        assert_eq!(ssl("sslMode=VERIFY_CA&useSSL=false"), Ssl::Verify);
        assert_eq!(ssl("verifyServerCertificate=false&useSSL=true"), Ssl::Prefer);
        let unused = address(
            "jdbc:mysql://h/d?characterEncoding=utf8&sessionVariables=sql_mode=x&tinyInt1isBit=false",
        );
        assert_eq!(unused.unused, ["sessionVariables"]);
    }

    #[test]
    fn other_addresses_are_refused_without_showing_what_they_hold() {
        for (url, expected) in [
            (
                "jdbc:oracle:thin:u/hidden@h:1521:x",
                "unsupported JDBC URL jdbc:oracle:...; expected jdbc:mysql://host:port/db",
            ),
            ("jdbc:mysql:loadbalance://h/hidden", "unsupported JDBC URL jdbc:mysql:...; expected"),
            ("mysql://u:hidden@h/d", "(without jdbc: in front)"),
            ("jdbc:mysql://u:hidden@h/d", "holds an account"),
            ("jdbc:mysql://h/d?user=u&password=hidden", "holds an account"),
            ("jdbc:mysql://:3306/hidden", "no plain host"),
            ("jdbc:mysql://h:0/hidden", "no plain host"),
            ("jdbc:mysql://h:x/hidden", "no plain host"),
            ("jdbc:mysql://(host=hidden)/d", "no plain host"),
            ("jdbc:mysql://h/a/hidden", "no plain host"),
            ("jdbc:mysql://${hidden}:3306/d", "parameter ${...} without a value"),
            ("", "unsupported JDBC URL"),
        ] {
            let told = parse(url).expect_err(url).to_string();
            assert!(told.contains(expected) && !told.contains("hidden"), "{url}: {told}");
        }
    }
}
