//! Addresses of FE HTTP ports as people write them, brought to the one form `http[s]://host:port`. Pure.

/// Why an address cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLoadUrl {
    #[error("missing port in \"{0}\"; the FE HTTP port is usually 8030")]
    NoPort(String),
    #[error("\"{0}\" has no usable port; a port is a number from 1 to 65535")]
    BadPort(String),
    #[error("\"{0}\" has no host")]
    NoHost(String),
    #[error("\"{0}\" holds more than host and port")]
    Path(String),
    #[error("\"{0}\" is not http or https")]
    Scheme(String),
}

/// The addresses in `text`, which may be a list parted by commas or semicolons. Blank pieces are skipped. Without
/// `default_port` every address must name its port.
pub fn parse_list(text: &str, default_port: Option<u16>) -> Result<Vec<String>, InvalidLoadUrl> {
    text.split([',', ';'])
        .map(str::trim)
        .filter(|piece| !piece.is_empty())
        .map(|piece| parse(piece, default_port))
        .collect()
}

/// One address.
pub fn parse(text: &str, default_port: Option<u16>) -> Result<String, InvalidLoadUrl> {
    let shown = || mask_user_info(text);
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("http", rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https", rest),
        Some(_) => return Err(InvalidLoadUrl::Scheme(shown())),
        None => ("http", text),
    };
    let address = rest.strip_suffix('/').unwrap_or(rest);
    if address.contains(['/', '?', '#', '@']) || address.contains(char::is_whitespace) {
        return Err(InvalidLoadUrl::Path(shown()));
    }
    let (host, port) = split_port(address);
    if host.is_empty() || host == "[]" {
        return Err(InvalidLoadUrl::NoHost(shown()));
    }
    let port = match (port, default_port) {
        (Some(port), _) => port
            .parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| InvalidLoadUrl::BadPort(shown()))?,
        (None, Some(port)) => port,
        (None, None) => return Err(InvalidLoadUrl::NoPort(shown())),
    };
    Ok(format!("{scheme}://{host}:{port}"))
}

/// The port of an address in normal form.
pub fn port(url: &str) -> Option<u16> {
    url.rsplit_once(':')?.1.parse().ok()
}

/// The host of an address in normal form, without square brackets.
pub fn host(url: &str) -> Option<&str> {
    let host = url.split_once("://")?.1.rsplit_once(':')?.0;
    Some(host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host))
}

/// Host and port text; an IPv6 address stands in square brackets.
fn split_port(address: &str) -> (&str, Option<&str>) {
    match address.rfind(':') {
        Some(colon) if !address[colon..].contains(']') => (&address[..colon], Some(&address[colon + 1..])),
        _ => (address, None),
    }
}

/// Somebody may have written `user:password@host`; that must not reach a message.
fn mask_user_info(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, host)) => format!("***@{host}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_way_to_write_an_address_ends_in_one_form() {
        assert_eq!(parse("fe1:8030", None).as_deref(), Ok("http://fe1:8030"));
        assert_eq!(parse("http://fe1:8030/", None).as_deref(), Ok("http://fe1:8030"));
        assert_eq!(parse("HTTPS://fe1:443", None).as_deref(), Ok("https://fe1:443"));
        assert_eq!(parse("[::1]:8030", None).as_deref(), Ok("http://[::1]:8030"));
        assert_eq!(parse("fe1", Some(8030)).as_deref(), Ok("http://fe1:8030"));
        assert_eq!(
            parse_list("a:1, b:2;c:3,", None).as_deref(),
            Ok(&["http://a:1".to_owned(), "http://b:2".into(), "http://c:3".into()][..])
        );
    }

    #[test]
    fn an_address_in_normal_form_has_host_and_port() {
        assert_eq!((host("http://fe1:8030"), port("http://fe1:8030")), (Some("fe1"), Some(8030)));
        assert_eq!((host("https://[::1]:443"), port("https://[::1]:443")), (Some("::1"), Some(443)));
    }

    #[test]
    fn what_is_not_an_address_is_named_without_credentials() {
        assert_eq!(parse("10.0.0.1", None), Err(InvalidLoadUrl::NoPort("10.0.0.1".into())));
        assert_eq!(parse("fe:80300", None), Err(InvalidLoadUrl::BadPort("fe:80300".into())));
        assert_eq!(parse(":8030", None), Err(InvalidLoadUrl::NoHost(":8030".into())));
        assert_eq!(parse("fe:8030/api", None), Err(InvalidLoadUrl::Path("fe:8030/api".into())));
        assert_eq!(parse("u:secret@fe:8030", None), Err(InvalidLoadUrl::Path("***@fe:8030".into())));
        assert_eq!(
            parse("jdbc:mysql://fe:9030", None),
            Err(InvalidLoadUrl::Scheme("jdbc:mysql://fe:9030".into()))
        );
    }
}
