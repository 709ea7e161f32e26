//! Signed tokens (RFC 7515, 7517, 7519): keys, signatures, and nothing about
//! what the claims mean.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair, RsaKeyPair, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey as ParsedKey;

/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSA, PKCS#1, SHA-256.
    Rs256,
    /// RSA, PKCS#1, SHA-384.
    Rs384,
    /// RSA, PKCS#1, SHA-512.
    Rs512,
    /// RSA, PSS, SHA-256.
    Ps256,
    /// RSA, PSS, SHA-384.
    Ps384,
    /// RSA, PSS, SHA-512.
    Ps512,
    /// ECDSA, P-256, SHA-256.
    Es256,
    /// ECDSA, P-384, SHA-384.
    Es384,
    /// ECDSA, P-521, SHA-512.
    Es512,
}

impl Algorithm {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("ES512", Self::Es512),
    ];

    /// The name in a token's header.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, algorithm)| *algorithm == self).map_or("", |(name, _)| name)
    }

    /// The algorithm of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no PEM of the right kind.
    #[error("no PEM key of a known kind is in it")]
    Missing,
    /// It is neither RSA of at least 2048 bits nor ECDSA on P-256, P-384 or
    /// P-521.
    #[error("the key is neither RSA (2048 to 8192 bits) nor ECDSA on P-256, P-384 or P-521")]
    Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ec { curve: Curve, point: Vec<u8> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    const ALL: &'static [(Self, &'static str, usize, Algorithm)] = &[
        (Self::P256, "P-256", 32, Algorithm::Es256),
        (Self::P384, "P-384", 48, Algorithm::Es384),
        (Self::P521, "P-521", 66, Algorithm::Es512),
    ];

    fn row(self) -> &'static (Self, &'static str, usize, Algorithm) {
        Self::ALL.iter().find(|row| row.0 == self).unwrap_or(&Self::ALL[0])
    }
}

/// A key that checks signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// `kid` in tokens and key sets.
    pub id: String,
    material: Material,
}

fn without_leading_zeros(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|byte| *byte == 0).collect()
}

impl PublicKey {
    /// A key from its `SubjectPublicKeyInfo`. The id is made from it as
    /// upstream makes it.
    ///
    /// # Errors
    /// When it is of no known kind.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::Kind)?;
        let material = match info.parsed().map_err(|_| KeyError::Kind)? {
            ParsedKey::RSA(key) => {
                Material::Rsa { n: without_leading_zeros(key.modulus), e: without_leading_zeros(key.exponent) }
            }
            ParsedKey::EC(point) => {
                let point = point.data().to_vec();
                let curve = Curve::ALL.iter().find(|(_, _, size, _)| point.len() == 2 * size + 1);
                Material::Ec { curve: curve.ok_or(KeyError::Kind)?.0, point }
            }
            _ => return Err(KeyError::Kind),
        };
        Ok(Self { id: URL_SAFE_NO_PAD.encode(Sha256::digest(der)), material })
    }

    /// All keys in a PEM file: public keys, certificates, or private keys.
    ///
    /// # Errors
    /// When there is none, or one is of no known kind.
    pub fn from_pem(pem: &str) -> Result<Vec<Self>, KeyError> {
        let mut keys = Vec::new();
        for info in SubjectPublicKeyInfoDer::pem_slice_iter(pem.as_bytes()).flatten() {
            keys.push(Self::from_spki(info.as_ref())?);
        }
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()).flatten() {
            let (_, certificate) = X509Certificate::from_der(&certificate).map_err(|_| KeyError::Kind)?;
            keys.push(Self::from_spki(certificate.public_key().raw)?);
        }
        if keys.is_empty() {
            keys.push(SigningKey::from_pem(pem)?.public);
        }
        Ok(keys)
    }

    /// A key of a JSON key set; `None` for kinds that are not known, which are
    /// skipped as RFC 7517 asks.
    #[must_use]
    pub fn from_jwk(key: &Value) -> Option<Self> {
        let text = |field: &str| key.get(field).and_then(Value::as_str);
        if text("use").is_some_and(|usage| usage != "sig") {
            return None;
        }
        let bytes = |field: &str| URL_SAFE_NO_PAD.decode(text(field)?).ok();
        let material = match text("kty")? {
            "RSA" => Material::Rsa { n: without_leading_zeros(&bytes("n")?), e: without_leading_zeros(&bytes("e")?) },
            "EC" => {
                let (curve, _, size, _) = Curve::ALL.iter().find(|(_, name, ..)| text("crv") == Some(name))?;
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != *size || y.len() != *size {
                    return None;
                }
                Material::Ec { curve: *curve, point: [vec![4], x, y].concat() }
            }
            _ => return None,
        };
        Some(Self { id: text("kid").unwrap_or_default().to_owned(), material })
    }

    /// The key as part of a JSON key set.
    #[must_use]
    pub fn to_jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let algorithm = self.algorithm().name();
        match &self.material {
            Material::Rsa { n, e } => {
                json!({"use": "sig", "kty": "RSA", "kid": self.id, "alg": algorithm, "n": text(n), "e": text(e)})
            }
            Material::Ec { curve, point } => {
                let (_, name, size, _) = curve.row();
                let (x, y) = point[1..].split_at(*size);
                json!({"use": "sig", "kty": "EC", "kid": self.id, "crv": name, "alg": algorithm, "x": text(x), "y": text(y)})
            }
        }
    }

    /// The algorithm with which this server signs with such a key.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match &self.material {
            Material::Rsa { .. } => Algorithm::Rs256,
            Material::Ec { curve, .. } => curve.row().3,
        }
    }

    /// Whether a signature is this key's, by the algorithm named.
    #[must_use]
    pub fn verify(&self, algorithm: Algorithm, message: &[u8], signed: &[u8]) -> bool {
        match &self.material {
            Material::Rsa { n, e } => {
                let parameters = match algorithm {
                    Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
                    Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
                    Algorithm::Es256 | Algorithm::Es384 | Algorithm::Es512 => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signed).is_ok()
            }
            Material::Ec { curve, point } => {
                let parameters: &dyn signature::VerificationAlgorithm = match (curve, algorithm) {
                    (Curve::P256, Algorithm::Es256) => &signature::ECDSA_P256_SHA256_FIXED,
                    (Curve::P384, Algorithm::Es384) => &signature::ECDSA_P384_SHA384_FIXED,
                    (Curve::P521, Algorithm::Es512) => &signature::ECDSA_P521_SHA512_FIXED,
                    _ => return false,
                };
                UnparsedPublicKey::new(parameters, point).verify(message, signed).is_ok()
            }
        }
    }
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

/// A key that signs.
pub struct SigningKey {
    /// Its public part.
    pub public: PublicKey,
    pair: Pair,
}

impl SigningKey {
    /// The first private key in a PEM file (PKCS#8, PKCS#1 or SEC1).
    ///
    /// # Errors
    /// When there is none, or it is of no known kind.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Missing)?;
        let curves = [
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
        ];
        let pair = match &key {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok().map(Pair::Rsa),
            PrivateKeyDer::Sec1(der) => curves
                .into_iter()
                .find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, der.secret_sec1_der()).ok())
                .map(Pair::Ec),
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                let ec = curves.into_iter().find_map(|curve| EcdsaKeyPair::from_pkcs8(curve, der).ok());
                ec.map(Pair::Ec).or_else(|| RsaKeyPair::from_pkcs8(der).ok().map(Pair::Rsa))
            }
            _ => None,
        };
        let pair = pair.ok_or(KeyError::Kind)?;
        let info: Result<PublicKeyX509Der<'_>, _> = match &pair {
            Pair::Rsa(pair) => pair.public_key().as_der(),
            Pair::Ec(pair) => pair.public_key().as_der(),
        };
        let public = PublicKey::from_spki(info.map_err(|_| KeyError::Kind)?.as_ref())?;
        Ok(Self { public, pair })
    }

    /// Signs claims; `None` if the machine's source of randomness fails.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> Option<String> {
        let header = json!({"alg": self.public.algorithm().name(), "kid": self.public.id});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let random = SystemRandom::new();
        let signed = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signed = vec![0; pair.public_modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signed).ok()?;
                signed
            }
            Pair::Ec(pair) => pair.sign(&random, message.as_bytes()).ok()?.as_ref().to_vec(),
        };
        Some(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed)))
    }
}

/// A token taken apart; nothing of it is proven yet.
#[derive(Debug)]
pub struct Unverified<'a> {
    /// Of the signature.
    pub algorithm: Algorithm,
    /// Id of the key, "" if not told.
    pub key: String,
    /// What is claimed.
    pub claims: Map<String, Value>,
    message: &'a str,
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart; `None` if it is none, or signed by an algorithm
    /// that is not known.
    #[must_use]
    pub fn parse(token: &'a str) -> Option<Self> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        if claims.contains('.') {
            return None;
        }
        let part = |text: &str| -> Option<Map<String, Value>> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
        };
        let header = part(header)?;
        let text = |field: &str| header.get(field).and_then(Value::as_str);
        // Extensions that must be understood are not.
        if header.contains_key("crit") {
            return None;
        }
        Some(Self {
            algorithm: Algorithm::parse(text("alg")?)?,
            key: text("kid").unwrap_or_default().to_owned(),
            claims: part(claims)?,
            message,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// Whether one of the keys has signed it. Keys with the token's key id
    /// are asked; all of them if there is none.
    #[must_use]
    pub fn is_signed_by<'k>(&self, mut keys: impl Iterator<Item = &'k PublicKey> + Clone) -> bool {
        let named = |key: &&PublicKey| !self.key.is_empty() && key.id == self.key;
        let verifies = |key: &PublicKey| key.verify(self.algorithm, self.message.as_bytes(), &self.signature);
        if keys.clone().any(|key| named(&key)) { keys.filter(named).any(verifies) } else { keys.any(verifies) }
    }

    /// A text among the claims, "" if absent.
    #[must_use]
    pub fn text(&self, claim: &str) -> &str {
        self.claims.get(claim).and_then(Value::as_str).unwrap_or_default()
    }
}

/// A time among claims, in seconds since 1970.
#[must_use]
pub fn seconds(claims: &Map<String, Value>, claim: &str) -> Option<i64> {
    let value = claims.get(claim)?;
    value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
}

/// `aud`: one text or several.
#[must_use]
pub fn audiences(claims: &Map<String, Value>) -> Vec<String> {
    match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A fresh key of each kind, as PEM.
    pub(crate) fn pems() -> Vec<String> {
        let rsa = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("a key");
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = rsa.as_der().expect("DER");
        let body = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = body.as_bytes().chunks(64).map(|c| std::str::from_utf8(c).expect("ASCII")).collect();
        let rsa = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
        vec![rcgen::KeyPair::generate().expect("a key").serialize_pem(), rsa]
    }

    #[test]
    fn what_is_signed_is_verified_by_its_key_only() {
        let keys: Vec<_> = pems().iter().map(|pem| SigningKey::from_pem(pem).expect("a key")).collect();
        for (index, key) in keys.iter().enumerate() {
            let token = key.sign(&json!({"sub": "me", "aud": "a"})).expect("signed");
            let parsed = Unverified::parse(&token).expect("a token");
            assert_eq!(parsed.text("sub"), "me");
            assert_eq!(audiences(&parsed.claims), ["a"]);
            assert!(parsed.is_signed_by(std::iter::once(&key.public)));
            assert!(!parsed.is_signed_by(std::iter::once(&keys[1 - index].public)));
            assert!(parsed.is_signed_by(keys.iter().map(|key| &key.public)));
            // The same key from a key set.
            let set = PublicKey::from_jwk(&key.public.to_jwk()).expect("a key");
            assert_eq!(set, key.public);
            assert!(parsed.is_signed_by(std::iter::once(&set)));
            // One claim changed.
            let (head, rest) = token.split_once('.').expect("parts");
            let (_, signature) = rest.split_once('.').expect("parts");
            let other = URL_SAFE_NO_PAD.encode(json!({"sub": "root"}).to_string());
            let forged = format!("{head}.{other}.{signature}");
            assert!(!Unverified::parse(&forged).expect("a token").is_signed_by(std::iter::once(&key.public)));
        }
    }

    #[test]
    fn no_token_without_a_known_signature() {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = part(json!({"sub": "me"}));
        for header in
            [json!({"alg": "none"}), json!({"alg": "HS256"}), json!({}), json!({"alg": "RS256", "crit": ["b64"]})]
        {
            let token = format!("{}.{claims}.AAAA", part(header.clone()));
            assert!(Unverified::parse(&token).is_none(), "{header}");
        }
        for text in ["", "a", "a.b", "a.b.c", "....", "\u{e9}.b.c"] {
            assert!(Unverified::parse(text).is_none(), "{text}");
        }
        assert!(Unverified::parse(&"a".repeat(MAX_TOKEN_BYTES + 1)).is_none());
    }

    #[test]
    fn keys_are_found_in_all_their_wrappings() {
        for pem in pems() {
            let key = SigningKey::from_pem(&pem).expect("a key");
            assert_eq!(PublicKey::from_pem(&pem).expect("keys"), [key.public]);
        }
        let pair = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::new(vec![]).expect("valid").self_signed(&pair).expect("signed");
        let expected = SigningKey::from_pem(&pair.serialize_pem()).expect("a key").public;
        assert_eq!(PublicKey::from_pem(&certificate.pem()).expect("keys"), [expected.clone()]);
        assert_eq!(PublicKey::from_pem(&pair.public_key_pem()).expect("keys"), [expected]);
        assert_eq!(PublicKey::from_pem("nothing").expect_err("none"), KeyError::Missing);
    }
}
