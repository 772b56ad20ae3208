//! The login to a server: how the password is proved, and which ways of proving it are refused. The password itself
//! leaves only over TLS, and only as `caching_sha2_password` asks for it.

use mysql_async::consts::CapabilityFlags;
use mysql_async::{DriverError, Error};
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest, HandshakePacket, HandshakeResponse};
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::{PACKET_BYTES_MAX, malformed, receive, refuse_error, send};
use super::packets::PacketBuffer;

/// What the server says of a `caching_sha2_password` login: nothing more is needed, or the password itself.
const FAST_AUTH_OK: u8 = 3;
const FULL_AUTH: u8 = 4;

/// Who logs in, where to.
pub(super) struct Account<'a> {
    pub username: &'a str,
    pub password: &'a str,
    pub database: &'a str,
}

/// Why nobody is logged in.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    /// The server does not have the password in its cache and the connection is not encrypted.
    #[error("the server asks for the password itself, which is not sent without encryption")]
    PasswordAsked,
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Answers the server's greeting. `capabilities` are those of both sides.
pub(super) async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    packets: &mut PacketBuffer,
    greeting: &HandshakePacket<'_>,
    account: &Account<'_>,
    capabilities: CapabilityFlags,
) -> Result<(), LoginError> {
    let mut plugin = greeting.auth_plugin().unwrap_or(AuthPlugin::MysqlNativePassword).into_owned();
    // An unknown plugin is the server's default, not the account's: the server names that one next.
    let response = HandshakeResponse::new(
        Some(proof(&plugin, account.password, &greeting.nonce()).unwrap_or_default()),
        greeting.server_version_parsed().unwrap_or_default(),
        Some(account.username.as_bytes()),
        Some(account.database.as_bytes()),
        capabilities.contains(CapabilityFlags::CLIENT_PLUGIN_AUTH).then(|| plugin.clone()),
        capabilities,
        None,
        PACKET_BYTES_MAX,
    );
    send(stream, packets, &response).await?;
    loop {
        let answer = receive(stream, packets).await?;
        let answer = packets.payload(answer);
        refuse_error(answer)?;
        let proof = match answer {
            [0, ..] => return Ok(()),
            [0xfe, _, ..] => {
                let request = ParseBuf(answer).parse::<AuthSwitchRequest<'_>>(()).map_err(malformed)?;
                plugin = request.auth_plugin().into_owned();
                proof(&plugin, account.password, request.plugin_data()).ok_or_else(|| unknown(&plugin))?
            }
            // The server's OK follows.
            [1, FAST_AUTH_OK] if plugin == AuthPlugin::CachingSha2Password => continue,
            [1, FULL_AUTH] if plugin == AuthPlugin::CachingSha2Password => {
                if !capabilities.contains(CapabilityFlags::CLIENT_SSL) {
                    return Err(LoginError::PasswordAsked);
                }
                [account.password.as_bytes(), &[0]].concat()
            }
            _ => return Err(malformed("an answer to the login that is none").into()),
        };
        send(stream, packets, proof.as_slice()).await?;
    }
}

/// What proves the password to `plugin`; an empty one is proved by nothing. `None`: a plugin that we do not have.
fn proof(plugin: &AuthPlugin<'_>, password: &str, nonce: &[u8]) -> Option<Vec<u8>> {
    match plugin {
        AuthPlugin::MysqlNativePassword | AuthPlugin::CachingSha2Password => {
            Some(plugin.gen_data(Some(password), nonce).map_or_else(Vec::new, |data| data.to_vec()))
        }
        _ => None,
    }
}

fn unknown(plugin: &AuthPlugin<'_>) -> Error {
    let name = String::from_utf8_lossy(plugin.as_bytes()).into_owned();
    Error::Driver(DriverError::UnknownAuthPlugin { name })
}

#[cfg(test)]
mod tests {
    use mysql_common::constants::StatusFlags;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::mysql::connection::CAPABILITIES;

    const NONCE: [u8; 20] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];
    const ACCOUNT: Account<'static> = Account { username: "loader", password: "l0ad-me", database: "shop" };
    /// SHA1(password) xor SHA1(nonce, SHA1(SHA1(password))).
    const NATIVE: [u8; 20] = [
        0xf8, 0x7b, 0x6d, 0x94, 0x1b, 0xd4, 0xe4, 0x9f, 0x9a, 0x35, 0xa9, 0xb6, 0xf8, 0x0d, 0xfb, 0xe4, 0x06,
        0x7b, 0x28, 0xa6,
    ];
    /// SHA256(password) xor SHA256(SHA256(SHA256(password)), nonce).
    const SHA2: [u8; 32] = [
        0xbc, 0xad, 0xd5, 0xb5, 0xc6, 0xfd, 0x88, 0xf1, 0x6b, 0x06, 0x68, 0xb0, 0xe0, 0x3d, 0x22, 0xb9, 0x89,
        0x83, 0xe2, 0x36, 0xb4, 0xbb, 0xe6, 0x5d, 0x17, 0x31, 0x2b, 0x92, 0x04, 0x70, 0xfd, 0x4c,
    ];
    const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];

    fn greeting(plugin: &'static str) -> HandshakePacket<'static> {
        let (one, two) = NONCE.split_first_chunk::<8>().expect("20 bytes");
        HandshakePacket::new(
            10,
            &b"8.0.36"[..],
            7,
            *one,
            Some([two, &[0]].concat()),
            CAPABILITIES,
            45,
            StatusFlags::empty(),
            Some(plugin.as_bytes()),
        )
    }

    /// The server's side: each step is what must come from the client, and what is answered.
    async fn script(mut stream: DuplexStream, steps: &[(Expected, &[&[u8]])]) {
        let mut sequence = 0;
        for (expected, answers) in steps {
            let mut head = [0; 4];
            stream.read_exact(&mut head).await.expect("the client's packet");
            assert_eq!(head[3], sequence);
            let mut packet = vec![0; usize::from(head[0]) + usize::from(head[1]) * 256];
            stream.read_exact(&mut packet).await.expect("the rest of it");
            match expected {
                Expected::Response { plugin, proof } => {
                    let response = ParseBuf(&packet).parse::<HandshakeResponse<'_>>(()).expect("one");
                    assert_eq!((response.user(), response.db_name()), (&b"loader"[..], Some(&b"shop"[..])));
                    assert_eq!(response.auth_plugin().map(AuthPlugin::as_bytes), Some(plugin.as_bytes()));
                    assert_eq!(response.scramble_buf(), *proof);
                    assert_eq!(response.collation(), 45);
                    let never = CapabilityFlags::CLIENT_DEPRECATE_EOF | CapabilityFlags::CLIENT_COMPRESS;
                    assert!(!response.capabilities().intersects(never));
                }
                Expected::Bytes(bytes) => assert_eq!(packet, *bytes),
            }
            sequence += 1;
            for answer in *answers {
                let head = u32::try_from(answer.len()).expect("short").to_le_bytes();
                stream.write_all(&[head[0], head[1], 0, sequence]).await.expect("the client listens");
                stream.write_all(answer).await.expect("the client listens");
                sequence += 1;
            }
        }
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("the client's end");
        assert!(rest.is_empty(), "more than was asked for");
    }

    enum Expected {
        Response { plugin: &'static str, proof: &'static [u8] },
        Bytes(&'static [u8]),
    }

    async fn logged_in(
        plugin: &'static str,
        more: CapabilityFlags,
        steps: &[(Expected, &[&[u8]])],
    ) -> Result<(), LoginError> {
        let (mut client, server) = duplex(4096);
        let mut packets = PacketBuffer::new();
        let client = async {
            let result =
                log_in(&mut client, &mut packets, &greeting(plugin), &ACCOUNT, CAPABILITIES | more).await;
            drop(client);
            result
        };
        tokio::join!(client, script(server, steps)).0
    }

    const NO_TLS: CapabilityFlags = CapabilityFlags::empty();

    fn switch(plugin: &str) -> Vec<u8> {
        [&[0xfe], plugin.as_bytes(), &[0], &NONCE, &[0]].concat()
    }

    #[tokio::test]
    async fn a_native_password_is_proved_at_once() {
        let proved = Expected::Response { plugin: "mysql_native_password", proof: &NATIVE };
        logged_in("mysql_native_password", NO_TLS, &[(proved, &[OK])]).await.expect("logged in");
    }

    #[tokio::test]
    async fn a_cached_password_needs_no_second_question() {
        let proved = Expected::Response { plugin: "caching_sha2_password", proof: &SHA2 };
        logged_in("caching_sha2_password", NO_TLS, &[(proved, &[&[1, 3], OK])]).await.expect("logged in");
    }

    #[tokio::test]
    async fn the_password_itself_goes_out_encrypted_or_not_at_all() {
        let proved = || Expected::Response { plugin: "caching_sha2_password", proof: &SHA2 };
        let full: &[&[u8]] = &[&[1, 4]];
        let steps = [(proved(), full), (Expected::Bytes(b"l0ad-me\0"), &[OK][..])];
        logged_in("caching_sha2_password", CapabilityFlags::CLIENT_SSL, &steps).await.expect("logged in");
        let refused = logged_in("caching_sha2_password", NO_TLS, &[(proved(), full)]).await;
        assert!(matches!(refused, Err(LoginError::PasswordAsked)), "{refused:?}");
    }

    #[tokio::test]
    async fn the_account_decides_how_the_password_is_proved() {
        for (plugin, proof) in [("mysql_native_password", &NATIVE[..]), ("caching_sha2_password", &SHA2[..])]
        {
            let first = Expected::Response { plugin: "sha256_password", proof: &[] };
            let switch = switch(plugin);
            let switch: &[&[u8]] = &[&switch];
            let steps = [(first, switch), (Expected::Bytes(proof), &[OK])];
            logged_in("sha256_password", NO_TLS, &steps).await.expect("logged in");
        }
    }

    #[tokio::test]
    async fn ways_to_give_the_password_away_are_refused() {
        for plugin in ["mysql_clear_password", "mysql_old_password", "dialog", "client_ed25519"] {
            let first = Expected::Response { plugin: "mysql_native_password", proof: &NATIVE };
            let switch = switch(plugin);
            let switch: &[&[u8]] = &[&switch];
            let tls = CapabilityFlags::CLIENT_SSL;
            let refused = logged_in("mysql_native_password", tls, &[(first, switch)]).await;
            let Err(LoginError::Failed(Error::Driver(DriverError::UnknownAuthPlugin { name }))) = refused
            else {
                panic!("{refused:?}");
            };
            assert_eq!(name, plugin);
        }
    }

    #[tokio::test]
    async fn a_refusal_keeps_the_servers_words() {
        let proved = Expected::Response { plugin: "mysql_native_password", proof: &NATIVE };
        let refusal: &[&[u8]] = &[b"\xff\x15\x04#28000Access denied for user 'loader'"];
        let refused = logged_in("mysql_native_password", NO_TLS, &[(proved, refusal)]).await;
        let Err(LoginError::Failed(Error::Server(error))) = refused else { panic!("{refused:?}") };
        assert_eq!((error.code, error.message.as_str()), (1045, "Access denied for user 'loader'"));
    }

    #[tokio::test]
    async fn nonsense_in_answer_to_a_login_is_an_error() {
        for nonsense in [&[][..], &[1], &[1, 2], &[0xfe], &[0xff], &[7, 7, 7]] {
            let proved = Expected::Response { plugin: "mysql_native_password", proof: &NATIVE };
            let refused = logged_in("mysql_native_password", NO_TLS, &[(proved, &[nonsense])]).await;
            assert!(refused.is_err(), "{nonsense:?}");
        }
    }
}
