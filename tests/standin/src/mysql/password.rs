//! `mysql_native_password`: the answer to a salt is `SHA1(password) XOR SHA1(salt + SHA1(SHA1(password)))`.

use sha1::{Digest as _, Sha1};

/// Twenty printable bytes, as some clients stop at a zero byte.
pub(super) fn salt() -> [u8; 20] {
    std::array::from_fn(|_| fastrand::u8(b'A'..=b'Z'))
}

/// Whether `answer` proves the password. An empty password has an empty answer.
pub(super) fn matches(password: &str, salt: &[u8], answer: &[u8]) -> bool {
    if password.is_empty() {
        return answer.is_empty();
    }
    answer == scramble(password, salt)
}

fn scramble(password: &str, salt: &[u8]) -> Vec<u8> {
    let once = Sha1::digest(password);
    let twice = Sha1::digest(once);
    let mask = Sha1::new().chain_update(salt).chain_update(twice).finalize();
    once.iter().zip(mask).map(|(left, right)| left ^ right).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_matches() {
        let salt = salt();
        let answer = scramble("secret", &salt);
        assert!(matches("secret", &salt, &answer));
        assert!(!matches("Secret", &salt, &answer));
        assert!(!matches("secret", &salt, &[]));
        assert!(matches("", &salt, &[]));
        assert!(!matches("", &salt, &answer));
    }
}
