//! The session of a browser: a cookie that holds the token, for the time that the browser is open and for half a day at
//! most. No script can read it, no page of another site sends it, and a server keeps nothing of it, so that any
//! coordinator behind one name takes it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};

/// A browser takes a cookie of this prefix only over TLS, and gives it to no other host.
const NAME_TLS: &str = "__Host-starlift";
const NAME: &str = "starlift";

/// Seconds after which somebody signs in again.
const LIFETIME_S: u32 = 12 * 3600;

/// The value of `Set-Cookie` that begins a session, or with no token ends it.
pub fn cookie(token: Option<&str>, is_encrypted: bool) -> HeaderValue {
    let (name, secure) = if is_encrypted { (NAME_TLS, "; Secure") } else { (NAME, "") };
    // A token may hold characters that a cookie may not.
    let (value, lifetime) = match token {
        Some(token) => (URL_SAFE_NO_PAD.encode(token), LIFETIME_S),
        None => (String::new(), 0),
    };
    let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={lifetime}{secure}");
    let mut header = HeaderValue::from_str(&text).expect("base64 and our own words are visible ASCII");
    header.set_sensitive(true);
    header
}

/// The token in the cookies of a request.
pub(crate) fn token(headers: &HeaderMap) -> Option<Vec<u8>> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| [NAME_TLS, NAME].contains(name))?;
    URL_SAFE_NO_PAD.decode(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(cookie: &str) -> Option<Vec<u8>> {
        token(&HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(cookie).unwrap())]))
    }

    #[test]
    fn a_token_comes_back_from_the_cookie_it_was_put_into() {
        let odd = "a;b=c,\"d\\e~!#%";
        for (is_encrypted, name) in [(false, NAME), (true, NAME_TLS)] {
            let set = cookie(Some(odd), is_encrypted);
            let set = set.to_str().unwrap().to_owned();
            assert!(set.starts_with(&format!("{name}=")) && !set.contains(odd), "{set}");
            assert!(set.contains("; HttpOnly; SameSite=Strict; "), "{set}");
            assert_eq!(set.ends_with("; Secure"), is_encrypted, "{set}");
            let pair = set.split(';').next().unwrap();
            assert_eq!(sent(&format!("theme=dark; {pair}")), Some(odd.into()));
        }
    }

    #[test]
    fn no_cookie_of_ours_is_no_token() {
        assert_eq!(token(&HeaderMap::new()), None);
        for cookie in ["other=x", "starlift", "starlift=%%", "xstarlift=YQ"] {
            assert_eq!(sent(cookie), None, "{cookie}");
        }
        assert_eq!(cookie(None, false), "starlift=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    }
}
