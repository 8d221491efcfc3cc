//! The arithmetic of SRP-6a (RFC 5054 2.4 to 2.6), and what is proven with it.
//!
//! ```text
//! x = H(salt | H(user ":" password))    v = g^x          k = H(N | g)      u = H(A | B)
//! A = g^a                               B = k*v + g^b
//! S = (B - k*g^x)^(a + u*x)             S = (A * v^u)^b                    K = H(S)
//! M1 = H(H(N) xor H(g) | H(user) | salt | A | B | K)                       M2 = H(A | M1 | K)
//! ```
//!
//! H is SHA-256 over numbers without leading zeros. Editions of librist differ in two points, see [`Hashing`].

use std::sync::LazyLock;

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// A number as it goes on the wire, big-endian.
pub(super) type Bytes = Vec<u8>;
/// What a hash gives, and the length of our secret numbers (RFC 5054 3.1 asks for at least 256 bits).
pub(super) type Hash = [u8; 32];

/// How the peer hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hashing {
    /// EAPOL version 2, librist until 0.2.7: the inner hash of x, M1 and M2 start from a state of zeros.
    Unseeded,
    /// Librist 0.2.8 to 0.2.15.
    Unpadded,
    /// Librist since 0.2.16, and RFC 5054: in k and u numbers are as long as N.
    Padded,
}

/// The numbers modulo a prime, and a generator.
#[derive(Debug)]
pub(super) struct Group {
    params: BoxedMontyParams,
    /// N, without leading zeros.
    modulus: Bytes,
    generator: BoxedMontyForm,
    generator_byte: u8,
}

/// What both sides know once each has the other's number.
pub(super) struct Agreement {
    /// K.
    pub(super) key: Zeroizing<Hash>,
    /// M1.
    pub(super) client_proof: Hash,
    /// M2.
    pub(super) server_proof: Hash,
}

/// What goes into the proofs beside numbers.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) user: &'a [u8],
    pub(super) salt: &'a [u8],
}

impl Group {
    /// The one of 2,048 bits of RFC 5054 appendix A, which RIST uses.
    pub(super) fn of_2048_bits() -> &'static Self {
        static GROUP: LazyLock<Group> = LazyLock::new(|| Group::new(&MODULUS_2048, 2));
        &GROUP
    }

    /// # Panics
    /// If the modulus is even.
    fn new(modulus: &[u8], generator: u8) -> Self {
        let number = BoxedUint::from_be_slice_vartime(modulus);
        let odd = Odd::new(number.clone()).into_option();
        #[expect(clippy::expect_used, reason = "a constant of ours")]
        let params = BoxedMontyParams::new_vartime(odd.expect("the modulus is odd"));
        let generator_number = BoxedUint::from_be_slice_truncated(&[generator], number.bits_precision());
        let generator_form = BoxedMontyForm::new(generator_number, &params);
        Self { params, modulus: modulus.to_vec(), generator: generator_form, generator_byte: generator }
    }

    /// A peer's number, if it is one of this group and not zero: with zero he would know S (RFC 5054 2.5.3, 2.5.4).
    fn element(&self, bytes: &[u8]) -> Option<BoxedMontyForm> {
        let number = BoxedUint::from_be_slice(bytes, self.params.bits_precision()).ok()?;
        let is_in = !bool::from(number.is_zero()) && number < *self.params.modulus().as_ref();
        is_in.then(|| BoxedMontyForm::new(number, &self.params))
    }

    /// Whether it may be somebody's public number.
    pub(super) fn has(&self, bytes: &[u8]) -> bool {
        self.element(bytes).is_some()
    }

    /// A hash as a number, reduced in case the group is smaller.
    fn factor(&self, hash: &Hash) -> BoxedMontyForm {
        let precision = self.params.bits_precision().max(256);
        let number = BoxedUint::from_be_slice_truncated(hash, precision);
        BoxedMontyForm::new(number.rem(self.params.modulus().as_nz_ref()), &self.params)
    }

    fn power(&self, base: &BoxedMontyForm, exponent: &Hash) -> BoxedMontyForm {
        let exponent = Zeroizing::new(BoxedUint::from_be_slice_truncated(exponent, 256));
        base.pow_bounded_exp(&exponent, 256)
    }

    /// g to the power of x, a or b: a verifier, or the public number of a client.
    pub(super) fn raise(&self, exponent: &Hash) -> Bytes {
        bytes(&self.power(&self.generator, exponent))
    }

    /// B.
    fn server_public(&self, secret: &Hash, verifier: &BoxedMontyForm, multiplier: &Hash) -> Bytes {
        bytes(&self.factor(multiplier).mul(verifier).add(&self.power(&self.generator, secret)))
    }

    /// S at the server.
    fn server_premaster(&self, secret: &Hash, client: &BoxedMontyForm, verifier: &BoxedMontyForm, u: &Hash) -> Bytes {
        bytes(&self.power(&client.mul(&self.power(verifier, u)), secret))
    }

    /// S at the client.
    fn client_premaster(&self, secret: &Hash, server: &BoxedMontyForm, k: &Hash, x: &Hash, u: &Hash) -> Bytes {
        let base = server.sub(&self.factor(k).mul(&self.power(&self.generator, x)));
        let [secret, x, u] =
            [secret, x, u].map(|hash| Zeroizing::new(BoxedUint::from_be_slice_truncated(hash, EXPONENT_BITS)));
        let exponent = Zeroizing::new(secret.wrapping_add(&*Zeroizing::new(u.wrapping_mul(&*x))));
        bytes(&base.pow_bounded_exp(&exponent, EXPONENT_BITS))
    }

    fn multiplier(&self, hashing: Hashing) -> Hash {
        let generator = [self.generator_byte];
        self.hash_of_two(&self.modulus, &generator, hashing)
    }

    /// For k and u.
    fn hash_of_two(&self, a: &[u8], b: &[u8], hashing: Hashing) -> Hash {
        let zeros = vec![0; self.modulus.len()];
        let padding = |number: &[u8]| match hashing {
            Hashing::Padded => self.modulus.len().saturating_sub(number.len()),
            Hashing::Unseeded | Hashing::Unpadded => 0,
        };
        hash(&[&zeros[..padding(a)], a, &zeros[..padding(b)], b], true)
    }

    fn agree(&self, hashing: Hashing, names: Names<'_>, [a, b]: [&[u8]; 2], premaster: Bytes) -> Agreement {
        let is_seeded = hashing != Hashing::Unseeded;
        let key = Zeroizing::new(hash(&[&Zeroizing::new(premaster)], true));
        let mut group = hash(&[&self.modulus], true);
        let generator = hash(&[&[self.generator_byte]], true);
        group.iter_mut().zip(generator).for_each(|(byte, other)| *byte ^= other);
        let user = hash(&[names.user], true);
        let client_proof = hash(&[&group, &user, trimmed(names.salt), a, b, &*key], is_seeded);
        let server_proof = hash(&[a, &client_proof, &*key], is_seeded);
        Agreement { key, client_proof, server_proof }
    }

    /// What the client makes of the number `server` of the server; `None` if that is none, or u were zero.
    pub(super) fn client(
        &self,
        hashing: Hashing,
        names: Names<'_>,
        password: &[u8],
        secret: &Hash,
        server: &[u8],
    ) -> Option<Agreement> {
        let (client, server) = (self.raise(secret), trimmed(server));
        let element = self.element(server)?;
        let u = self.hash_of_two(&client, server, hashing);
        if u == [0; 32] {
            return None;
        }
        let x = Zeroizing::new(exponent(hashing, names, password));
        let premaster = self.client_premaster(secret, &element, &self.multiplier(hashing), &x, &u);
        Some(self.agree(hashing, names, [&client, server], premaster))
    }

    /// B, and what the server makes of the number `client` of the client; `None` if that or the verifier is none, or u
    /// were zero.
    pub(super) fn server(
        &self,
        hashing: Hashing,
        names: Names<'_>,
        verifier: &[u8],
        secret: &Hash,
        client: &[u8],
    ) -> Option<(Bytes, Agreement)> {
        let client = trimmed(client);
        let (element, verifier) = (self.element(client)?, self.element(verifier)?);
        let server = self.server_public(secret, &verifier, &self.multiplier(hashing));
        let u = self.hash_of_two(client, &server, hashing);
        if u == [0; 32] || server.is_empty() {
            return None;
        }
        let premaster = self.server_premaster(secret, &element, &verifier, &u);
        let agreement = self.agree(hashing, names, [client, &server], premaster);
        Some((server, agreement))
    }
}

/// x.
pub(super) fn exponent(hashing: Hashing, names: Names<'_>, password: &[u8]) -> Hash {
    let inner = Zeroizing::new(hash(&[names.user, b":", password], hashing != Hashing::Unseeded));
    hash(&[trimmed(names.salt), &*inner], true)
}

/// SHA-256 of all parts, one after the other.
pub(super) fn hash(parts: &[&[u8]], is_seeded: bool) -> Hash {
    if is_seeded {
        let mut sha = Sha256::new();
        parts.iter().for_each(|part| sha.update(part));
        return sha.finalize().into();
    }
    // FIPS 180-4 5.1.1 and 6.2, but with another first state.
    let mut message = Zeroizing::new(parts.concat());
    let bits = message.len() as u64 * 8;
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend(bits.to_be_bytes());
    let (blocks, _) = message.as_chunks::<64>();
    let mut state = [0; 8];
    sha2::block_api::compress256(&mut state, blocks);
    let mut out = [0; 32];
    out.as_chunks_mut::<4>().0.iter_mut().zip(state).for_each(|(bytes, word)| *bytes = word.to_be_bytes());
    out
}

/// Without leading zeros.
fn bytes(form: &BoxedMontyForm) -> Bytes {
    let number = Zeroizing::new(form.retrieve().to_be_bytes());
    trimmed(&number).to_vec()
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())..]
}

/// A sum of 256 bits and a product of two such, in whole words.
const EXPONENT_BITS: u32 = 576;

#[rustfmt::skip]
const MODULUS_2048: [u8; 256] = [
    0xac, 0x6b, 0xdb, 0x41, 0x32, 0x4a, 0x9a, 0x9b, 0xf1, 0x66, 0xde, 0x5e, 0x13, 0x89, 0x58, 0x2f,
    0xaf, 0x72, 0xb6, 0x65, 0x19, 0x87, 0xee, 0x07, 0xfc, 0x31, 0x92, 0x94, 0x3d, 0xb5, 0x60, 0x50,
    0xa3, 0x73, 0x29, 0xcb, 0xb4, 0xa0, 0x99, 0xed, 0x81, 0x93, 0xe0, 0x75, 0x77, 0x67, 0xa1, 0x3d,
    0xd5, 0x23, 0x12, 0xab, 0x4b, 0x03, 0x31, 0x0d, 0xcd, 0x7f, 0x48, 0xa9, 0xda, 0x04, 0xfd, 0x50,
    0xe8, 0x08, 0x39, 0x69, 0xed, 0xb7, 0x67, 0xb0, 0xcf, 0x60, 0x95, 0x17, 0x9a, 0x16, 0x3a, 0xb3,
    0x66, 0x1a, 0x05, 0xfb, 0xd5, 0xfa, 0xaa, 0xe8, 0x29, 0x18, 0xa9, 0x96, 0x2f, 0x0b, 0x93, 0xb8,
    0x55, 0xf9, 0x79, 0x93, 0xec, 0x97, 0x5e, 0xea, 0xa8, 0x0d, 0x74, 0x0a, 0xdb, 0xf4, 0xff, 0x74,
    0x73, 0x59, 0xd0, 0x41, 0xd5, 0xc3, 0x3e, 0xa7, 0x1d, 0x28, 0x1e, 0x44, 0x6b, 0x14, 0x77, 0x3b,
    0xca, 0x97, 0xb4, 0x3a, 0x23, 0xfb, 0x80, 0x16, 0x76, 0xbd, 0x20, 0x7a, 0x43, 0x6c, 0x64, 0x81,
    0xf1, 0xd2, 0xb9, 0x07, 0x87, 0x17, 0x46, 0x1a, 0x5b, 0x9d, 0x32, 0xe6, 0x88, 0xf8, 0x77, 0x48,
    0x54, 0x45, 0x23, 0xb5, 0x24, 0xb0, 0xd5, 0x7d, 0x5e, 0xa7, 0x7a, 0x27, 0x75, 0xd2, 0xec, 0xfa,
    0x03, 0x2c, 0xfb, 0xdb, 0xf5, 0x2f, 0xb3, 0x78, 0x61, 0x60, 0x27, 0x90, 0x04, 0xe5, 0x7a, 0xe6,
    0xaf, 0x87, 0x4e, 0x73, 0x03, 0xce, 0x53, 0x29, 0x9c, 0xcc, 0x04, 0x1c, 0x7b, 0xc3, 0x08, 0xd8,
    0x2a, 0x56, 0x98, 0xf3, 0xa8, 0xd0, 0xc3, 0x82, 0x71, 0xae, 0x35, 0xf8, 0xe9, 0xdb, 0xfb, 0xb6,
    0x94, 0xb5, 0xc8, 0x03, 0xd8, 0x9f, 0x7a, 0xe4, 0x35, 0xde, 0x23, 0x6d, 0x52, 0x5f, 0x54, 0x75,
    0x9b, 0x65, 0xe3, 0x72, 0xfc, 0xd6, 0x8e, 0xf2, 0x0f, 0xa7, 0x11, 0x1f, 0x9e, 0x4a, 0xff, 0x73,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::capture::hex;
    use super::*;

    /// A hash from the digits of a number that may be shorter.
    fn number(text: &str) -> Hash {
        let digits = hex(text);
        let mut out = [0; 32];
        out[32 - digits.len()..].copy_from_slice(&digits);
        out
    }

    #[test]
    fn the_arithmetic_is_that_of_rfc_5054_appendix_b() {
        let group = Group::new(&hex(RFC_N), 2);
        let [x, k, u, a, b] = [RFC_X, RFC_K, RFC_U, RFC_SECRET_A, RFC_SECRET_B].map(number);
        let (verifier, client, server) = (group.raise(&x), group.raise(&a), hex(RFC_B));
        assert_eq!((&verifier, &client), (&hex(RFC_V), &hex(RFC_A)));
        let element = |bytes: &[u8]| group.element(bytes).unwrap();
        assert_eq!(group.server_public(&b, &element(&verifier), &k), server);
        assert_eq!(group.client_premaster(&a, &element(&server), &k, &x, &u), hex(RFC_S));
        assert_eq!(group.server_premaster(&b, &element(&client), &element(&verifier), &u), hex(RFC_S));
    }

    /// The example of TR-06-2, and what librist makes of it without a first state of SHA-256.
    #[test]
    fn the_proofs_are_those_of_the_example_of_tr_06_2() {
        let group = Group::new(&hex(VSF_N), 2);
        let salt = hex(VSF_SALT);
        let names = Names { user: b"rist", salt: &salt };
        let [a, b] = [VSF_SECRET_A, VSF_SECRET_B].map(number);
        assert_eq!(group.raise(&a), hex(VSF_A));
        for (hashing, [verifier, server, client_proof, server_proof]) in
            [(Hashing::Unpadded, VSF_UNPADDED), (Hashing::Unseeded, VSF_UNSEEDED)]
        {
            assert_eq!(group.raise(&exponent(hashing, names, b"mainprofile")), hex(verifier), "{hashing:?}");
            let (public, there) = group.server(hashing, names, &hex(verifier), &b, &hex(VSF_A)).unwrap();
            assert_eq!(public, hex(server), "{hashing:?}");
            let here = group.client(hashing, names, b"mainprofile", &a, &public).unwrap();
            for agreement in [&here, &there] {
                assert_eq!(agreement.client_proof[..], hex(client_proof), "{hashing:?}");
                assert_eq!(agreement.server_proof[..], hex(server_proof), "{hashing:?}");
            }
            assert_eq!(here.key, there.key);
        }
    }

    #[test]
    fn a_verifier_made_by_ristsrppasswd_is_reproduced() {
        let group = Group::of_2048_bits();
        let salt = hex(TOOL_SALT);
        let names = Names { user: b"alice", salt: &salt };
        assert_eq!(group.raise(&exponent(Hashing::Unseeded, names, b"wonder")), hex(TOOL_VERIFIER));
    }

    #[test]
    fn numbers_that_give_the_secret_away_are_refused() {
        let group = Group::of_2048_bits();
        let mut above = MODULUS_2048;
        above[255] += 2;
        let long = [[0].as_slice(), &MODULUS_2048].concat();
        for bytes in [&[][..], &[0], &[0; 256], &MODULUS_2048, &above, &long, &[1; 257]] {
            assert!(!group.has(bytes), "{} bytes", bytes.len());
            let names = Names { user: b"u", salt: b"s" };
            assert!(group.server(Hashing::Padded, names, &[2], &[7; 32], bytes).is_none());
            assert!(group.client(Hashing::Padded, names, b"p", &[7; 32], bytes).is_none());
        }
        assert!(group.has(&[1]) && group.has(&[0, 1]));
    }

    #[test]
    fn with_a_first_state_the_hash_is_sha_256() {
        // FIPS 180-4, the example of one block.
        let abc = hex("ba7816bf 8f01cfea 414140de 5dae2223 b00361a3 96177a9c b410ff61 f20015ad");
        assert_eq!(hash(&[b"a", b"bc"], true)[..], abc);
        assert_ne!(hash(&[b"a", b"bc"], false)[..], abc);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn both_sides_agree_with_the_same_password_only(
            a: Hash, b: Hash, salt in prop::collection::vec(any::<u8>(), 1..40), password in "[a-z]{1,20}", kind in 0..3_usize
        ) {
            let group = Group::of_2048_bits();
            let hashing = [Hashing::Unseeded, Hashing::Unpadded, Hashing::Padded][kind];
            let names = Names { user: b"alice", salt: &salt };
            let verifier = group.raise(&exponent(hashing, names, password.as_bytes()));
            let (public, there) = group.server(hashing, names, &verifier, &b, &group.raise(&a)).unwrap();
            let here = group.client(hashing, names, password.as_bytes(), &a, &public).unwrap();
            prop_assert_eq!(&here.key, &there.key);
            prop_assert_eq!((here.client_proof, here.server_proof), (there.client_proof, there.server_proof));
            let wrong = group.client(hashing, names, b"another", &a, &public).unwrap();
            prop_assert_ne!(wrong.client_proof, there.client_proof);
        }
    }

    const RFC_N: &str = "\
        EEAF0AB9ADB38DD69C33F80AFA8FC5E86072618775FF3C0B9EA2314C9C256576D674DF7496EA81D3383B4813D692C6E0\
        E0D5D8E250B98BE48E495C1D6089DAD15DC7D7B46154D6B6CE8EF4AD69B15D4982559B297BCF1885C529F566660E57EC\
        68EDBC3C05726CC02FD4CBF4976EAA9AFD5138FE8376435B9FC61D2FC0EB06E3";
    const RFC_K: &str = "7556AA045AEF2CDD07ABAF0F665C3E818913186F";
    const RFC_X: &str = "94B7555AABE9127CC58CCF4993DB6CF84D16C124";
    const RFC_U: &str = "CE38B9593487DA98554ED47D70A7AE5F462EF019";
    const RFC_SECRET_A: &str = "60975527035CF2AD1989806F0407210BC81EDC04E2762A56AFD529DDDA2D4393";
    const RFC_SECRET_B: &str = "E487CB59D31AC550471E81F00F6928E01DDA08E974A004F49E61F5D105284D20";
    const RFC_V: &str = "\
        7E273DE8696FFC4F4E337D05B4B375BEB0DDE1569E8FA00A9886D8129BADA1F1822223CA1A605B530E379BA4729FDC59\
        F105B4787E5186F5C671085A1447B52A48CF1970B4FB6F8400BBF4CEBFBB168152E08AB5EA53D15C1AFF87B2B9DA6E04\
        E058AD51CC72BFC9033B564E26480D78E955A5E29E7AB245DB2BE315E2099AFB";
    const RFC_A: &str = "\
        61D5E490F6F1B79547B0704C436F523DD0E560F0C64115BB72557EC44352E8903211C04692272D8B2D1A5358A2CF1B6E\
        0BFCF99F921530EC8E39356179EAE45E42BA92AEACED825171E1E8B9AF6D9C03E1327F44BE087EF06530E69F66615261\
        EEF54073CA11CF5858F0EDFDFE15EFEAB349EF5D76988A3672FAC47B0769447B";
    const RFC_B: &str = "\
        BD0C61512C692C0CB6D041FA01BB152D4916A1E77AF46AE105393011BAF38964DC46A0670DD125B95A981652236F99D9\
        B681CBF87837EC996C6DA04453728610D0C6DDB58B318885D7D82C7F8DEB75CE7BD4FBAA37089E6F9C6059F388838E7A\
        00030B331EB76840910440B1B27AAEAEEB4012B7D7665238A8E3FB004B117B58";
    const RFC_S: &str = "\
        B0DC82BABCF30674AE450C0287745E7990A3381F63B387AAF271A10D233861E359B48220F7C4693C9AE12B0A6F67809F\
        0876E2D013800D6C41BB59B6D5979B5C00A172B4A2A5903A0BDCAF8A709585EB2AFAFA8F3499B200210DCC1F10EB3394\
        3CD67FC88A2F39A4BE5BEC4EC0A3212DC346D7E474B29EDE8A469FFECA686E5A";

    const VSF_N: &str = "\
        D66AAFE8E245F9AC245A199F62CE61AB8FA90A4D80C71CD2ADFD0B9DA163B29F2A34AFBDB3B1B5D0102559CE63D8B6E8\
        6B0AA59C14E79D4AA62D1748E4249DF3";
    const VSF_SALT: &str = "72F9D5383B7EB7599FB63028F47475B60A55F313D40E0BE023E026C97C0A2C32";
    const VSF_SECRET_A: &str = "138AB4045633AD14961CB1AD0720B1989104151C0708794491113302CCCC27D5";
    const VSF_SECRET_B: &str = "ED0D58FF861A1FC75A0829BEA5F1392D2B13AB2B05CBCD6ED1E71AAAD761E856";
    const VSF_A: &str = "\
        92C4CEFB95A1AE2E576A252B19273FD4613F44FDA4AC8CC84A089D5740756223943882BAD34CB55F35139CDDB60E0D19\
        ACD2B884CFB27F53C8EA969269ABE014";
    /// Verifier, B, M1, M2.
    const VSF_UNPADDED: [&str; 4] = [
        "2E06FEA163D6E9FF0FA7ED6C59233389D0DBA0C08C0F72F6DAD1E2A3D8B92A772F070439D1C11B87FA990D2DAF\
         04EB830CC77D61ACC4B253297379CD8E6DC3AF",
        "858CDC811B5EEAA7F58C12767D309EBD2DF1D46F59EF5686052E6511CF853CA4E66910BDBD28CBEAE2F2DEE7F6\
         BF3756757BD69E88D48C77B5371A82EF52AD84",
        "E28147C801BAB9C37647C1FF4A29FA720E3F5676434FB85EA9A752CC1F9B1AD4",
        "84F19797916FBDCAB1321CA78B575B145B586150248AFAA156361B8BCB139B32",
    ];
    const VSF_UNSEEDED: [&str; 4] = [
        "557EA208F87A23C28936423EC16ABE6BD959933DFBEFC0B36EBD9335DE3997C97DDFA081D64CFBC6EFBFD5BE19\
         F2ED9F77922FD7E88BBA6C6B310A9018EC4305",
        "85CAE0C578E6927B78BEB173FB0F9BFC8ECB4C13542BB8BE3B0F3447B3764A234177E22D180DCAD21F33302248\
         B7452916DC58ABD309C8A77440A228B8516A4E",
        "EBFC2D79BEB3CBF7BA83C27E2B51524F8CD3F3B2C4804815AD2516D465DF80C9",
        "FB14D73B5ACBBA101E5A799F80EBCBB43D83890E23DED979110EEFF109C0441A",
    ];
    /// Of librist 0.2.7, for alice and wonder.
    const TOOL_SALT: &str = "9b09ef259316572680ad462bf25f16b837bec41de6952dfae2b1bcb4d5b83144";
    const TOOL_VERIFIER: &str = "\
        39bf207e7848ed0d984c40a251d0270fa70b6b35fdd222ed0f2b77082fda4d6ae1af29619d8b069c9b4dffc42cb1fad5\
        4de71f7a19f22d8e909ee7794ee9586b476b1d80880533f61d21bd7279374c42bec276570a109d7ee1085bafbf4d76e8\
        54b29fdaff93b44cd37f1b83436a5d3d71fe5aa0657d8d4c0ec34a7b932d7fe2d7704bc7c72bd21ce46b2a3d27b99486\
        ebedb12fb7342737f2a00ec78085bfab113e922330404048dc59d03ec4e80787d7c687e32082dbaa6b15f3e8e3cb5dcf\
        44e45125d6c99246558af504db511755458c910c41d0737c1af405de8af05d8e33cbf445f522be1cd06e0dbdf4aec473\
        873cab848748d26dca20db758540065f";
}
