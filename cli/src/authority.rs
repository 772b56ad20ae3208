//! `starlift tls init`: an authority, certificates for both sides and tokens, for a first cluster. Whoever has an
//! authority already uses its certificates.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use starlift_common::problem::{Code, Problem};

use crate::args::TlsInitArgs;
use crate::end::{End, Outcome, one};
use crate::process::unix_time;

const CA_YEARS: i32 = 10;
const LEAF_YEARS: i32 = 2;
/// Every certificate of a server holds these besides the names that were asked for.
const HERE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Writes all files, or none when one of them is there already.
pub(crate) fn init(args: &TlsInitArgs) -> Outcome {
    let files = make(&args.names, today()).map_err(one)?;
    let failed = |path: &Path, error: std::io::Error| {
        one(Problem::new(Code::InvalidSettings, format!("cannot write: {error}"))
            .at(path.display().to_string()))
    };
    std::fs::create_dir_all(&args.dir).map_err(|error| failed(&args.dir, error))?;
    if let Some(path) = files.iter().map(|file| args.dir.join(file.name)).find(|path| path.exists()) {
        let problem = Problem::new(Code::InvalidSettings, "this file is there already, nothing was written");
        let hint = "choose another directory; a second authority would shut out all who trust the first";
        return Err(one(problem.at(path.display().to_string()).hint(hint)));
    }
    for file in &files {
        let path = args.dir.join(file.name);
        let mode = if file.is_secret { 0o600 } else { 0o644 };
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        opened
            .and_then(|mut opened| opened.write_all(file.text.as_bytes()))
            .map_err(|error| failed(&path, error))?;
    }
    print!("{}", next_steps(&args.dir.display().to_string()));
    Ok(End::Done)
}

struct NewFile {
    name: &'static str,
    text: String,
    is_secret: bool,
}

fn today() -> Date {
    let seconds = i64::try_from(unix_time().as_secs()).unwrap_or_default();
    Timestamp::from_second(seconds).unwrap_or_default().to_zoned(TimeZone::UTC).date()
}

fn make(names: &[String], today: Date) -> Result<Vec<NewFile>, Problem> {
    let bad = |error: rcgen::Error| {
        Problem::new(Code::InvalidSettings, format!("cannot make a certificate: {error}"))
    };
    let ca_key = KeyPair::generate().map_err(bad)?;
    let mut ca = CertificateParams::new(Vec::new()).map_err(bad)?;
    ca.distinguished_name.push(DnType::CommonName, "Starlift authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    last(&mut ca, today, CA_YEARS);
    let ca_certificate = ca.self_signed(&ca_key).map_err(bad)?;
    let issuer = Issuer::new(ca, ca_key);

    let mut all_names: Vec<String> = HERE.iter().map(ToString::to_string).collect();
    all_names.extend(names.iter().filter(|name| !HERE.contains(&name.as_str())).cloned());
    // Coordinators call each other, so theirs serve both sides.
    let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let (server, server_key) = issue(&issuer, "Starlift server", all_names, both, today).map_err(bad)?;
    let client_only = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let (client, client_key) =
        issue(&issuer, "Starlift client", Vec::new(), client_only, today).map_err(bad)?;

    let (worker, user, read) = (token()?, token()?, token()?);
    let file = |name, text| NewFile { name, text, is_secret: false };
    let secret = |name, text| NewFile { name, text, is_secret: true };
    Ok(vec![
        file("ca.crt", ca_certificate.pem()),
        secret("ca.key", issuer.key().serialize_pem()),
        file("server.crt", server),
        secret("server.key", server_key),
        file("client.crt", client),
        secret("client.key", client_key),
        secret("tokens", format!("worker {worker}\nuser {user}\nread {read}\n")),
        secret("worker.tokens", format!("worker {worker}\nread {read}\n")),
        secret("user.token", format!("user {user}\n")),
    ])
}

fn issue(
    issuer: &Issuer<'_, KeyPair>,
    common_name: &str,
    names: Vec<String>,
    usages: Vec<ExtendedKeyUsagePurpose>,
    today: Date,
) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.extended_key_usages = usages;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    last(&mut params, today, LEAF_YEARS);
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}

/// Good from yesterday, because clocks differ, and for so many years.
fn last(params: &mut CertificateParams, today: Date, years: i32) {
    let date = |date: Date| {
        date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = date(today.saturating_sub(1.day()));
    params.not_after = date(today.saturating_add(years.years()));
}

/// 256 random bits.
fn token() -> Result<String, Problem> {
    let mut bytes = [0; 32];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Problem::new(Code::Internal, "the system gives no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn next_steps(dir: &str) -> String {
    format!(
        "Written to {dir}: an authority (keep ca.key away from the machines of the cluster), certificates of servers and \
         clients, tokens.\n\
         coordinator: --tls-cert {dir}/server.crt --tls-key {dir}/server.key --tls-ca {dir}/ca.crt --token-file {dir}/tokens [--mutual-tls]\n\
         worker:      --tls-cert {dir}/server.crt --tls-key {dir}/server.key --tls-ca {dir}/ca.crt --token-file {dir}/worker.tokens\n\
         people:      --tls-cert {dir}/client.crt --tls-key {dir}/client.key --tls-ca {dir}/ca.crt --token-file {dir}/user.token\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_overwritten_and_secrets_are_for_their_owner() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().expect("a directory");
        let args = TlsInitArgs { dir: dir.path().join("tls"), names: vec!["coordinator.example".into()] };
        assert!(init(&args).is_ok());
        let mode = |name: &str| {
            std::fs::metadata(args.dir.join(name)).expect("it was written").permissions().mode() & 0o777
        };
        for (name, expected) in
            [("ca.crt", 0o644), ("ca.key", 0o600), ("server.key", 0o600), ("tokens", 0o600)]
        {
            assert_eq!(mode(name), expected, "{name}");
        }
        let before = std::fs::read_to_string(args.dir.join("ca.crt")).expect("it was written");
        let refused = init(&args).map(|_| ()).expect_err("the files are there");
        assert!(refused[0].place.ends_with("ca.crt"), "{refused:?}");
        assert_eq!(std::fs::read_to_string(args.dir.join("ca.crt")).expect("it stays"), before);
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        assert!(make(&["käse\u{0}".into()], today()).is_err());
    }
}
