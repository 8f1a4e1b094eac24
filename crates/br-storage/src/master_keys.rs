//! # What it does
//! Wraps the data keys of a log under a master key, and unwraps them: master keys are in files or
//! in Amazon's key management service. Several can be given; the first that works is used, so that
//! a key can be replaced while data under the old one is still read.

use std::{collections::HashMap, fs, sync::Arc};

use br_format::{
    crypter::{Crypter, CrypterError},
    log::encryption::{FileEncryption, KeySource},
    master_key::{MasterKey, MasterKeyError},
};
use br_proto::encryptionpb::{self as pb, EncryptedContent, MasterKeyBased, master_key};
use br_rt::Rt;
use br_types::{Classify, Code, Kind};
use tokio::sync::Mutex;
use url::Url;

use crate::{Kms, KmsError, Secret};

/// How the service's vendor stands in metadata.
const VENDOR: &str = "kms_vendor";
/// And the data key that the service has wrapped.
const WRAPPED: &str = "kms_ciphertext_key";
/// Amazon, in metadata and in tasks.
const AWS: &[u8] = b"AWS";
const AWS_IN_TASKS: &str = "aws";

/// Unwrapped keys of the service that are held: each store draws one in its life.
const KEYS_HELD_MAX: usize = 1024;

/// Why a master key is of no use.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MasterKeysError {
    /// The URL is none of the forms.
    #[error("the master key {place} cannot be used: {reason}")]
    Url {
        /// The URL without its settings, which can be secret.
        place: String,
        /// Why.
        reason: &'static str,
    },
    /// A kind that only other tools have.
    #[error("master keys in {0} are not supported")]
    Unsupported(String),
    /// The file cannot be read.
    #[error("the master key file {path} cannot be read: {reason}")]
    File {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The key does not fit.
    #[error("{place}: {source}")]
    Key {
        /// The master key.
        place: String,
        /// Why.
        source: MasterKeyError,
    },
    /// The service does not help.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// What a right master key gave is no data key.
    #[error("a data key is damaged: {0}")]
    DataKey(String),
    /// There is no master key at all.
    #[error("no master key is given")]
    Missing,
}

impl Classify for MasterKeysError {
    fn kind(&self) -> Kind {
        match self {
            MasterKeysError::Kms(error) => error.kind(),
            MasterKeysError::DataKey(_) => Kind::Data,
            MasterKeysError::Key {
                source: MasterKeyError::Damaged { .. },
                ..
            } => Kind::Data,
            _ => Kind::Invalid,
        }
    }

    fn code(&self) -> Code {
        match self {
            MasterKeysError::Kms(error) => error.code(),
            MasterKeysError::Unsupported(_) => Code::UNSUPPORTED_OPERATION,
            other => Code::of_kind(other.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(
            match self {
                MasterKeysError::Kms(error) => return error.next_step(),
                MasterKeysError::DataKey(_) => return None,
                MasterKeysError::Key {
                    source: MasterKeyError::WrongKey,
                    ..
                } => "pass the --master-key that the log backup was started with",
                MasterKeysError::Url { .. } | MasterKeysError::Unsupported(_) => {
                    "write it as local:///path/of/the/file or aws-kms:///KEY-ID?REGION=region"
                }
                _ => {
                    "pass --master-key local:///path/of/the/file or \
                     aws-kms:///KEY-ID?REGION=region"
                }
            }
            .to_owned(),
        )
    }
}

/// Reads a `--master-key`: `local:///file` or `aws-kms:///KEY-ID?REGION=…`, as requests and tasks
/// carry it.
///
/// # Errors
/// It is none of them, or says too little.
pub fn parse_master_key(text: &str) -> Result<pb::MasterKey, MasterKeysError> {
    let place = text.split('?').next().unwrap_or_default();
    let wrong = |reason| MasterKeysError::Url {
        place: place.to_owned(),
        reason,
    };
    // A plus in a secret is a plus, not a blank.
    let url = Url::parse(&text.replace('+', "%2B")).map_err(|_| wrong("it is no URL"))?;
    let backend = match url.scheme() {
        "local" if url.host_str().is_some_and(|host| !host.is_empty()) => {
            return Err(wrong("its path is not absolute, such as local:///file"));
        }
        "local" => master_key::Backend::File(pb::MasterKeyFile {
            path: path_of(&url),
        }),
        "aws-kms" => master_key::Backend::Kms(aws(&url).map_err(wrong)?),
        scheme @ ("azure-kms" | "gcp-kms") => {
            return Err(MasterKeysError::Unsupported(scheme.to_owned()));
        }
        _ => return Err(wrong("it begins neither with local:// nor with aws-kms://")),
    };
    Ok(pb::MasterKey {
        backend: Some(backend),
    })
}

/// The path of a URL, decoded.
fn path_of(url: &Url) -> String {
    let path = url.path().replace('+', "%2B");
    let mut pairs = url::form_urlencoded::parse(path.as_bytes());
    let path = pairs.next().map(|(path, _)| path.into_owned());
    path.unwrap_or_default()
}

fn aws(url: &Url) -> Result<pb::MasterKeyKms, &'static str> {
    let setting = |name: &str| {
        let mut pairs = url.query_pairs();
        let found = pairs.find(|(key, _)| key == name);
        found
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    let key_id = url.path().strip_prefix('/').unwrap_or_default();
    if key_id.is_empty() || key_id.contains('/') {
        return Err("it names no key, such as aws-kms:///KEY-ID");
    }
    let region = setting("REGION");
    if region.is_empty() {
        return Err("it names no region, such as ?REGION=us-east-1");
    }
    let access_key = setting("AWS_ACCESS_KEY_ID");
    let secret_access_key = setting("AWS_SECRET_ACCESS_KEY");
    if access_key.is_empty() != secret_access_key.is_empty() {
        return Err("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together");
    }
    Ok(pb::MasterKeyKms {
        vendor: AWS_IN_TASKS.to_owned(),
        key_id: key_id.to_owned(),
        region,
        endpoint: setting("ENDPOINT"),
        aws_kms: (!access_key.is_empty()).then_some(pb::AwsKms {
            access_key,
            secret_access_key,
        }),
        ..pb::MasterKeyKms::default()
    })
}

/// Master keys, opened. Cheap to clone.
#[derive(Clone)]
pub struct MasterKeys(Arc<Inner>);

struct Inner {
    rt: Rt,
    keys: Vec<Opened>,
    protos: Vec<pb::MasterKey>,
}

enum Opened {
    File {
        place: String,
        key: Box<MasterKey>,
    },
    Kms {
        place: String,
        kms: Kms,
        held: Box<Mutex<Held>>,
    },
}

/// What the service has told already.
#[derive(Default)]
struct Held {
    /// The key that data keys are wrapped under: drawn once, as in TiKV.
    wrapping: Option<(MasterKey, Vec<u8>)>,
    unwrapped: HashMap<Vec<u8>, MasterKey>,
}

impl std::fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MasterKeys({})", self.0.keys.len())
    }
}

impl MasterKeys {
    /// Reads the files; asks no service yet.
    ///
    /// # Errors
    /// There is none; a file that is missing or has another form; a kind that is not supported.
    pub async fn open(rt: &Rt, keys: &[pb::MasterKey]) -> Result<MasterKeys, MasterKeysError> {
        if keys.is_empty() {
            return Err(MasterKeysError::Missing);
        }
        let mut opened = Vec::new();
        for key in keys {
            opened.push(match &key.backend {
                Some(master_key::Backend::File(file)) => open_file(rt, &file.path).await?,
                Some(master_key::Backend::Kms(kms)) => open_kms(rt, kms)?,
                Some(master_key::Backend::Plaintext(_)) | None => {
                    return Err(MasterKeysError::Unsupported("plain text".to_owned()));
                }
            });
        }
        Ok(MasterKeys(Arc::new(Inner {
            rt: rt.clone(),
            keys: opened,
            protos: keys.to_vec(),
        })))
    }

    /// As a request to stores carries them; holds credentials.
    pub fn to_proto(&self) -> Vec<pb::MasterKey> {
        self.0.protos.clone()
    }

    /// Wraps a data key under the first master key that works.
    ///
    /// # Errors
    /// None works: that of the last.
    pub async fn wrap(&self, data_key: &[u8]) -> Result<MasterKeyBased, MasterKeysError> {
        let mut failed = MasterKeysError::Missing;
        for key in &self.0.keys {
            match key.wrap(&self.0.rt, data_key).await {
                Ok(content) => {
                    return Ok(MasterKeyBased {
                        data_key_encrypted_content: vec![content],
                    });
                }
                Err(error) => failed = self.next(error),
            }
        }
        Err(failed)
    }

    /// Wraps a data key under each of the master keys, so that any of them opens it.
    ///
    /// # Errors
    /// One of them does not work.
    pub async fn wrap_under_all(&self, data_key: &[u8]) -> Result<MasterKeyBased, MasterKeysError> {
        let mut wrapped = MasterKeyBased::default();
        for key in &self.0.keys {
            let content = key.wrap(&self.0.rt, data_key).await?;
            wrapped.data_key_encrypted_content.push(content);
        }
        Ok(wrapped)
    }

    /// The master keys as text for people, without settings, which can be secret.
    pub fn places(&self) -> Vec<String> {
        let places = self.0.keys.iter().map(|key| match key {
            Opened::File { place, .. } | Opened::Kms { place, .. } => place.clone(),
        });
        places.collect()
    }

    /// Unwraps a data key with the master key that wrapped it.
    ///
    /// # Errors
    /// None did: that of the last; or the key is damaged.
    pub async fn unwrap(&self, wrapped: &MasterKeyBased) -> Result<Vec<u8>, MasterKeysError> {
        let mut failed = MasterKeysError::DataKey("it is missing".to_owned());
        for content in &wrapped.data_key_encrypted_content {
            for key in &self.0.keys {
                match key.unwrap(content).await {
                    Ok(data_key) => return Ok(data_key),
                    Err(error) => failed = self.next(error),
                }
            }
        }
        Err(failed)
    }

    /// Puts the data key beside a file's encryption, so that the file can be opened; nothing if it
    /// is not under a master key.
    ///
    /// # Errors
    /// As [`MasterKeys::unwrap`].
    pub async fn open_file_key(&self, file: &mut FileEncryption) -> Result<(), MasterKeysError> {
        let method = file.method;
        let KeySource::MasterKey { wrapped, opened } = &mut file.key else {
            return Ok(());
        };
        if opened.is_none() {
            let data_key = self.unwrap(wrapped).await?;
            let crypter = Crypter::new(method, &data_key);
            let text = |error: CrypterError| MasterKeysError::DataKey(error.to_string());
            *opened = Some(crypter.map_err(text)?);
        }
        Ok(())
    }

    /// With several keys it is usual that some do not fit.
    fn next(&self, error: MasterKeysError) -> MasterKeysError {
        if self.0.keys.len() > 1 {
            tracing::debug!(%error, "trying the next master key");
        }
        error
    }
}

async fn open_file(rt: &Rt, path: &str) -> Result<Opened, MasterKeysError> {
    let (path, place) = (path.to_owned(), format!("local://{path}"));
    let file = path.clone();
    let text = rt.blocking(move || fs::read(file)).await;
    let text = text.map_err(|error| MasterKeysError::File {
        path,
        reason: error.to_string(),
    })?;
    match MasterKey::from_file(&text) {
        Ok(key) => Ok(Opened::File {
            place,
            key: Box::new(key),
        }),
        Err(source) => Err(MasterKeysError::Key { place, source }),
    }
}

fn open_kms(rt: &Rt, kms: &pb::MasterKeyKms) -> Result<Opened, MasterKeysError> {
    if kms.vendor != AWS_IN_TASKS && !kms.vendor.is_empty() {
        return Err(MasterKeysError::Unsupported(format!("{}-kms", kms.vendor)));
    }
    let keys = kms.aws_kms.clone().unwrap_or_default();
    let secret = Secret::new(keys.secret_access_key);
    let opened = Kms::open(
        rt,
        &kms.key_id,
        &kms.region,
        &kms.endpoint,
        &keys.access_key,
        &secret,
    )?;
    Ok(Opened::Kms {
        place: format!("aws-kms:///{}", kms.key_id),
        kms: opened,
        held: Box::default(),
    })
}

impl Opened {
    async fn wrap(&self, rt: &Rt, data_key: &[u8]) -> Result<EncryptedContent, MasterKeysError> {
        let (place, kms, held) = match self {
            Opened::File { key, .. } => return Ok(key.seal(data_key, rt.random_bytes())),
            Opened::Kms { place, kms, held } => (place, kms, held),
        };
        let mut held = held.lock().await;
        let (key, wrapped) = match &held.wrapping {
            Some(wrapping) => wrapping,
            None => {
                let new = kms.generate_data_key().await?;
                let key = MasterKey::new(&new.plaintext).map_err(|source| error(place, source))?;
                held.wrapping.insert((key, new.wrapped))
            }
        };
        let mut content = key.seal(data_key, rt.random_bytes());
        content.metadata.insert(VENDOR.to_owned(), AWS.to_vec());
        content.metadata.insert(WRAPPED.to_owned(), wrapped.clone());
        Ok(content)
    }

    async fn unwrap(&self, content: &EncryptedContent) -> Result<Vec<u8>, MasterKeysError> {
        let vendor = content.metadata.get(VENDOR).map(Vec::as_slice);
        let (place, kms, held) = match self {
            // Under a key of a service, or of a file: the other does not fit.
            Opened::File { place, .. } if vendor.is_some() => {
                return Err(error(place, MasterKeyError::WrongKey));
            }
            Opened::File { place, key } => {
                return key.open(content).map_err(|source| error(place, source));
            }
            Opened::Kms { place, kms, held } => (place, kms, held),
        };
        if vendor != Some(AWS) {
            return Err(error(place, MasterKeyError::WrongKey));
        }
        let wrapped = content.metadata.get(WRAPPED);
        let wrapped =
            wrapped.ok_or_else(|| error(place, MasterKeyError::Damaged { field: WRAPPED }))?;
        let mut held = held.lock().await;
        if !held.unwrapped.contains_key(wrapped) {
            let key = kms.decrypt(wrapped).await?;
            let key = MasterKey::new(&key).map_err(|source| error(place, source))?;
            if held.unwrapped.len() >= KEYS_HELD_MAX {
                held.unwrapped.clear();
            }
            held.unwrapped.insert(wrapped.clone(), key);
        }
        match held.unwrapped.get(wrapped) {
            Some(key) => key.open(content).map_err(|source| error(place, source)),
            None => Err(error(place, MasterKeyError::WrongKey)),
        }
    }
}

fn error(place: &str, source: MasterKeyError) -> MasterKeysError {
    MasterKeysError::Key {
        place: place.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let file = |path: &str| {
            Some(master_key::Backend::File(pb::MasterKeyFile {
                path: path.to_owned(),
            }))
        };
        let parsed = |text| parse_master_key(text).unwrap().backend;
        assert_eq!(parsed("local:///a/b+c%20d"), file("/a/b+c d"));
        let Some(master_key::Backend::Kms(kms)) = parsed(
            "aws-kms:///k-1?AWS_ACCESS_KEY_ID=a&AWS_SECRET_ACCESS_KEY=b+c&REGION=r&ENDPOINT=http://h",
        ) else {
            panic!("no service")
        };
        assert_eq!((kms.key_id.as_str(), kms.region.as_str()), ("k-1", "r"));
        assert_eq!(kms.endpoint, "http://h");
        assert_eq!(kms.aws_kms.unwrap().secret_access_key, "b+c");
        for wrong in [
            "local://a/b",
            "aws-kms:///k",
            "aws-kms:///?REGION=r",
            "aws-kms:///k?REGION=r&AWS_ACCESS_KEY_ID=hidden",
            "gcp-kms:///projects/p",
            "k",
        ] {
            let error = parse_master_key(wrong).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
    }

    #[tokio::test]
    async fn the_right_one_of_several_opens() {
        let dir = tempfile::tempdir().unwrap();
        let rt = Rt::real();
        let write = |name: &str, digits: &str| {
            let path = dir.path().join(name);
            fs::write(&path, format!("{}\n", digits.repeat(32))).unwrap();
            parse_master_key(&format!("local://{}", path.display())).unwrap()
        };
        let (old, new) = (write("old", "0a"), write("new", "0b"));
        let only_old = MasterKeys::open(&rt, std::slice::from_ref(&old))
            .await
            .unwrap();
        let wrapped = only_old.wrap(b"data key").await.unwrap();
        let only_new = MasterKeys::open(&rt, std::slice::from_ref(&new))
            .await
            .unwrap();
        let error = only_new.unwrap(&wrapped).await.unwrap_err();
        assert!(error.to_string().contains("another master key"), "{error}");
        assert_eq!(error.kind(), Kind::Invalid);
        let both = MasterKeys::open(&rt, &[new, old]).await.unwrap();
        assert_eq!(both.unwrap(&wrapped).await.unwrap(), b"data key");
        let again = both.wrap(b"data key").await.unwrap();
        assert_eq!(only_new.unwrap(&again).await.unwrap(), b"data key");
    }
}
