//! Who may come in: users with their passwords or verifiers.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::math::{Bytes, Group, Hash, Hashing, Names, exponent, hash};

/// What a caller says of himself, or whom a listener lets in. Cloning shares the memory; passwords are wiped by the last
/// owner, and never shown.
#[derive(Clone)]
pub struct Accounts(Arc<Kind>);

enum Kind {
    /// One user with his password: for a caller the only form.
    Login { user: Box<[u8]>, password: Zeroizing<Vec<u8>> },
    /// The lines of a file.
    Verifiers(Vec<Verifier>),
}

/// A line `user:verifier:salt:3:version` of a file as librist's `ristsrppasswd` makes it.
#[derive(PartialEq, Eq)]
struct Verifier {
    user: Box<[u8]>,
    verifier: Zeroizing<Bytes>,
    salt: Bytes,
    /// For peers until librist 0.2.7, which hash in a way of their own.
    is_old: bool,
}

/// No accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountsError {
    /// Empty, or longer than librist takes.
    #[error("user and password must have 1 to 255 bytes each")]
    Length,
    /// Not as `ristsrppasswd` makes it.
    #[error("line {0} is not of the form user:verifier:salt:3")]
    Line(usize),
    /// A file without lines, or with more than [`Accounts::LINES_MAX`].
    #[error("a file of users has 1 to 1024 lines")]
    Lines,
}

impl Accounts {
    /// Most lines of a file. Judgement: they are searched one by one.
    pub const LINES_MAX: usize = 1_024;

    /// One user.
    ///
    /// # Errors
    /// [`AccountsError::Length`].
    pub fn login(user: &str, password: &str) -> Result<Self, AccountsError> {
        let fits = |text: &str| (1..=NAME_BYTES_MAX).contains(&text.len());
        if !fits(user) || !fits(password) {
            return Err(AccountsError::Length);
        }
        let password = Zeroizing::new(password.as_bytes().to_vec());
        Ok(Self(Arc::new(Kind::Login { user: user.as_bytes().into(), password })))
    }

    /// Whether a caller can say who he is with this.
    #[must_use]
    pub fn is_login(&self) -> bool {
        matches!(*self.0, Kind::Login { .. })
    }

    /// User and password of a caller.
    pub(super) fn credentials(&self) -> Option<(&[u8], &[u8])> {
        match &*self.0 {
            Kind::Login { user, password } => Some((user, password)),
            Kind::Verifiers(_) => None,
        }
    }

    /// What a server says to `user`, for a peer that speaks EAPOL `version`; `seed` makes the salts that no file has. Who
    /// does not exist is answered like everybody else, so that nobody learns who does.
    pub(super) fn find(&self, user: &[u8], version: u8, seed: &Hash) -> Account {
        let salt = salt_of(user, seed);
        match &*self.0 {
            Kind::Login { user: known, .. } if **known == *user => Account { salt, is_old: version < 3, line: Some(0) },
            Kind::Login { .. } => Account { salt, is_old: version < 3, line: None },
            Kind::Verifiers(lines) => {
                let find = |is_old| lines.iter().position(|line| *line.user == *user && line.is_old == is_old);
                // To a newer client one can speak in the old way, but not the other way round.
                let line = if version < 3 { find(true) } else { find(false).or_else(|| find(true)) };
                let found = line.and_then(|line| lines.get(line));
                let is_old = found.map_or(version < 3, |found| found.is_old);
                Account { salt: found.map_or(salt, |found| found.salt.clone()), is_old, line }
            }
        }
    }

    /// The verifier of `account`; takes a while if there is a password instead. Of one who does not exist it is some
    /// number, found in the same time.
    pub(super) fn verifier(&self, account: &Account, hashing: Hashing) -> Zeroizing<Bytes> {
        match &*self.0 {
            Kind::Login { user, password } => {
                let names = Names { user, salt: &account.salt };
                let x = Zeroizing::new(exponent(hashing, names, password));
                Zeroizing::new(Group::of_2048_bits().raise(&x))
            }
            Kind::Verifiers(lines) => match account.line.and_then(|line| lines.get(line)) {
                Some(line) => line.verifier.clone(),
                None => Zeroizing::new(hash(&[&account.salt], true).to_vec()),
            },
        }
    }
}

/// What a server knows of a user.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) salt: Bytes,
    pub(super) is_old: bool,
    /// `None` if he does not exist.
    line: Option<usize>,
}

impl Account {
    pub(super) const fn exists(&self) -> bool {
        self.line.is_some()
    }
}

/// Always the same for one user. A salt is hashed as a number: this one has no leading zero.
fn salt_of(user: &[u8], seed: &Hash) -> Bytes {
    let mut salt = hash(&[seed, user], true).to_vec();
    salt[0] |= 0x80;
    salt
}

/// Reads the file's text.
impl FromStr for Accounts {
    type Err = AccountsError;

    fn from_str(text: &str) -> Result<Self, AccountsError> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        let mut verifiers = Vec::new();
        for (at, line) in lines {
            if verifiers.len() == Self::LINES_MAX {
                return Err(AccountsError::Lines);
            }
            verifiers.push(Verifier::parse(line.trim()).ok_or(AccountsError::Line(at + 1))?);
        }
        if verifiers.is_empty() { Err(AccountsError::Lines) } else { Ok(Self(Arc::new(Kind::Verifiers(verifiers)))) }
    }
}

impl Verifier {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let user = fields.next().filter(|user| (1..=NAME_BYTES_MAX).contains(&user.len()))?;
        let verifier = Zeroizing::new(base64(fields.next()?)?);
        let salt = base64(fields.next()?).filter(|salt| (1..=SALT_BYTES_MAX).contains(&salt.len()))?;
        // 3: the group of 2,048 bits.
        fields.next().filter(|group| *group == "3")?;
        let is_old = match fields.next() {
            None | Some("" | "0") => true,
            Some("1") => false,
            Some(_) => return None,
        };
        let is_whole = fields.next().is_none() && Group::of_2048_bits().has(&verifier);
        is_whole.then(|| Self { user: user.as_bytes().into(), verifier, salt, is_old })
    }
}

/// RFC 4648 4, where librist leaves the padding out.
fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    if text.len() % 4 == 1 {
        return None;
    }
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len()), 0_u32, 0);
    for digit in text {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Some(bytes)
}

impl PartialEq for Accounts {
    fn eq(&self, other: &Self) -> bool {
        match (&*self.0, &*other.0) {
            (Kind::Login { user: a, password: p }, Kind::Login { user: b, password: q }) => {
                a == b && bool::from(p.as_slice().ct_eq(q.as_slice()))
            }
            (Kind::Verifiers(a), Kind::Verifiers(b)) => a == b,
            (Kind::Login { .. }, Kind::Verifiers(_)) | (Kind::Verifiers(_), Kind::Login { .. }) => false,
        }
    }
}

impl Eq for Accounts {}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accounts(..)")
    }
}

/// As librist has it.
pub(super) const NAME_BYTES_MAX: usize = 255;
/// Librist's salts have 32 bytes.
pub(super) const SALT_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines of ristsrppasswd for alice and wonder: of librist 0.2.7, and of 0.2.12, which writes two.
    const OLD: &str = include_str!("../../../../tests/data/rist/srp-027.txt");
    const NEW: &str = include_str!("../../../../tests/data/rist/srp-0212.txt");

    #[test]
    fn files_of_ristsrppasswd_are_read_and_hold_that_password() {
        for (text, version, hashing) in [
            (OLD, 2, Hashing::Unseeded),
            (OLD, 3, Hashing::Unseeded),
            (NEW, 2, Hashing::Unseeded),
            (NEW, 3, Hashing::Unpadded),
        ] {
            let accounts: Accounts = text.parse().unwrap();
            let account = accounts.find(b"alice", version, &[1; 32]);
            assert!(account.exists() && account.is_old == (hashing == Hashing::Unseeded), "{version}");
            let names = Names { user: b"alice", salt: &account.salt };
            let expected = Group::of_2048_bits().raise(&exponent(hashing, names, b"wonder"));
            assert_eq!(*accounts.verifier(&account, hashing), expected, "{version}");
            assert!(!accounts.is_login() && accounts.credentials().is_none());
        }
    }

    #[test]
    fn who_does_not_exist_gets_a_salt_that_stays() {
        for accounts in [NEW.parse().unwrap(), Accounts::login("bob", "builder").unwrap()] {
            let [first, second] = [1, 1].map(|seed| accounts.find(b"mallory", 3, &[seed; 32]));
            assert!(!first.exists() && first.salt.len() == 32 && first.salt == second.salt);
            assert!(Group::of_2048_bits().has(&accounts.verifier(&first, Hashing::Unpadded)));
            assert_ne!(accounts.find(b"mallory", 3, &[2; 32]).salt, first.salt);
        }
    }

    #[test]
    fn what_is_no_file_of_users_is_refused_with_its_line() {
        let line = OLD.trim();
        for (text, error) in [
            ("", AccountsError::Lines),
            ("# nobody\n\n", AccountsError::Lines),
            ("alice:wonder", AccountsError::Line(1)),
            (&format!("{line}\nbob:AA:AA:3"), AccountsError::Line(2)),
            (&line.replace(":3", ":2"), AccountsError::Line(1)),
            (&line.replace(":3", ":3:7"), AccountsError::Line(1)),
            (&line.replace("alice", ""), AccountsError::Line(1)),
            (&format!("{line}\n").repeat(Accounts::LINES_MAX + 1), AccountsError::Lines),
        ] {
            assert_eq!(text.parse::<Accounts>(), Err(error), "{text}");
        }
        assert_eq!(Accounts::login("", "x"), Err(AccountsError::Length));
        assert_eq!(Accounts::login("x", &"y".repeat(256)), Err(AccountsError::Length));
    }

    #[test]
    fn passwords_are_compared_but_not_shown() {
        let login = Accounts::login("alice", "wonder").unwrap();
        assert_eq!(format!("{login:?}"), "Accounts(..)");
        assert_eq!(login, Accounts::login("alice", "wonder").unwrap());
        assert_ne!(login, Accounts::login("alice", "wonders").unwrap());
        assert_ne!(login, OLD.parse().unwrap());
        assert_ne!(OLD.parse::<Accounts>(), NEW.parse::<Accounts>());
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(text in "([a-z]{0,3}:[A-Za-z0-9+/=]{0,8}:[a-zA-Z]{0,4}:3(:[01])?\n?|\\PC{0,20}){0,4}") {
            let _ = text.parse::<Accounts>();
        }

        #[test]
        fn base64_is_that_of_rfc_4648(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            let text: String = bytes.chunks(3).flat_map(|chunk| {
                let word = chunk.iter().chain(&[0; 2]).take(3).fold(0, |word, byte| word << 8 | u32::from(*byte));
                (0..=chunk.len()).map(move |n| char::from(DIGITS[(word >> (18 - 6 * n) & 63) as usize]))
            }).collect();
            prop_assert_eq!(base64(&text), Some(bytes));
        }
    }
}
