//! The shared configuration files of Amazon's tools: `~/.aws/credentials` and `~/.aws/config`.

use std::{collections::BTreeMap, fs, path::PathBuf};

use crate::{Failure, Secret, environment::Environment};

/// A chain of profiles that refer to each other is no longer than this, or it is a ring.
const CHAIN_MAX: usize = 5;

type Section = BTreeMap<String, String>;

/// Where the credentials of a profile come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// They stand in the file.
    Keys {
        id: String,
        secret: Secret,
        token: Secret,
    },
    /// A role that is assumed with others.
    Role {
        arn: String,
        external_id: String,
        base: Box<Source>,
    },
    /// A role that is assumed with a token in a file.
    WebIdentity { arn: String, token_file: String },
    /// A command that says them.
    Process { profile: String, command: String },
    /// The keys in the environment.
    Environment,
    /// The metadata of the container.
    Container,
    /// The metadata of the machine.
    Instance,
    /// The metadata of container or machine.
    Elsewhere,
}

/// The profiles of both files.
#[derive(Default)]
pub(super) struct Profiles(BTreeMap<String, Section>);

impl Profiles {
    /// Reads the files; those that are not there are empty.
    pub(super) fn load(environment: &Environment) -> Profiles {
        let path = |variable: &str, name: &str| {
            let set = environment.get(variable).map(PathBuf::from);
            set.unwrap_or_else(|| environment.home().join(".aws").join(name))
        };
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        let mut profiles = Profiles::default();
        profiles.add(&read(path("AWS_CONFIG_FILE", "config")));
        profiles.add(&read(path("AWS_SHARED_CREDENTIALS_FILE", "credentials")));
        profiles
    }

    /// Adds the sections of one file; later settings go before earlier ones.
    fn add(&mut self, text: &str) {
        let mut name = None;
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(header) = line
                .strip_prefix('[')
                .and_then(|line| line.strip_suffix(']'))
            {
                let header = header.trim();
                let section = header.strip_prefix("profile ").unwrap_or(header).trim();
                name = Some(section.to_owned());
            } else if let (Some(name), Some((key, value))) = (&name, line.split_once('=')) {
                let section = self.0.entry(name.clone()).or_default();
                section.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
            }
        }
    }

    /// The region of a profile.
    pub(super) fn region(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.get("region").map(String::as_str)
    }

    /// Where the credentials of a profile come from.
    ///
    /// # Errors
    /// There is no such profile, it says too little, or uses what is not supported.
    pub(super) fn source(&self, name: &str) -> Result<Source, Failure> {
        self.source_within(name, CHAIN_MAX)
    }

    fn source_within(&self, name: &str, depth: usize) -> Result<Source, Failure> {
        let wrong = |why: &str| Failure::Settings(format!("the profile {name:?} {why}"));
        let section = self.0.get(name).ok_or_else(|| {
            wrong(
                "is in none of the shared configuration files (~/.aws/credentials, ~/.aws/config)",
            )
        })?;
        let get = |key: &str| section.get(key).cloned().unwrap_or_default();
        let keys = || Source::Keys {
            id: get("aws_access_key_id"),
            secret: Secret::new(get("aws_secret_access_key")),
            token: Secret::new(get("aws_session_token")),
        };
        let has_keys = section.contains_key("aws_access_key_id")
            && section.contains_key("aws_secret_access_key");
        let arn = get("role_arn");
        if arn.is_empty() {
            return match has_keys {
                true => Ok(keys()),
                false if section.contains_key("credential_process") => Ok(Source::Process {
                    profile: name.to_owned(),
                    command: get("credential_process"),
                }),
                false if section.keys().any(|key| key.starts_with("sso_")) => {
                    Err(wrong("uses single sign-on, which is not supported"))
                }
                false => Err(wrong("has no keys and no role")),
            };
        }
        if section.contains_key("web_identity_token_file") {
            let token_file = get("web_identity_token_file");
            return Ok(Source::WebIdentity { arn, token_file });
        }
        let base = match section.get("source_profile") {
            Some(_) if depth == 0 => return Err(wrong("refers to itself by way of others")),
            // A profile may be its own source, which means its own keys.
            Some(source) if source == name && has_keys => keys(),
            Some(source) => self.source_within(source, depth - 1)?,
            None => match get("credential_source").as_str() {
                "" => Source::Elsewhere,
                "Environment" => Source::Environment,
                "EcsContainer" => Source::Container,
                "Ec2InstanceMetadata" => Source::Instance,
                _ => return Err(wrong("has a credential_source that does not exist")),
            },
        };
        Ok(Source::Role {
            arn,
            external_id: get("external_id"),
            base: Box::new(base),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(id: &str, secret: &str) -> Source {
        Source::Keys {
            id: id.to_owned(),
            secret: Secret::new(secret),
            token: Secret::default(),
        }
    }

    #[test]
    fn profiles_of_both_files() {
        let mut profiles = Profiles::default();
        profiles.add(
            "# a comment\n[default]\nregion = eu-west-1\n[profile nightly]\n\
             role_arn = arn:role\nexternal_id=x\nsource_profile = base\n\
             [profile ring]\nrole_arn=a\nsource_profile=ring2\n\
             [profile ring2]\nrole_arn=b\nsource_profile=ring\n\
             [profile pod]\nrole_arn=r\nweb_identity_token_file=/token\n\
             [profile machine]\nrole_arn=r\ncredential_source=Ec2InstanceMetadata\n\
             [profile tool]\ncredential_process=/bin/x\n\
             [profile sso]\nsso_start_url=x\n\
             [profile odd]\nrole_arn=r\ncredential_source=Elsewhere\n",
        );
        profiles.add("[default]\naws_access_key_id=a\naws_secret_access_key = b=c\n[base]\nAWS_ACCESS_KEY_ID=k\naws_secret_access_key=s\n");
        assert_eq!(profiles.source("default"), Ok(keys("a", "b=c")));
        assert_eq!(profiles.region("default"), Some("eu-west-1"));
        let nightly = Source::Role {
            arn: "arn:role".to_owned(),
            external_id: "x".to_owned(),
            base: Box::new(keys("k", "s")),
        };
        assert_eq!(profiles.source("nightly"), Ok(nightly));
        let pod = Source::WebIdentity {
            arn: "r".to_owned(),
            token_file: "/token".to_owned(),
        };
        assert_eq!(profiles.source("pod"), Ok(pod));
        let Ok(Source::Role { base, .. }) = profiles.source("machine") else {
            panic!("no role")
        };
        assert_eq!(*base, Source::Instance);
        let tool = Source::Process {
            profile: "tool".to_owned(),
            command: "/bin/x".to_owned(),
        };
        assert_eq!(profiles.source("tool"), Ok(tool));
        for (name, said) in [
            ("ring", "refers to itself"),
            ("sso", "single sign-on"),
            ("odd", "credential_source"),
            ("none", "is in none of"),
        ] {
            let error = profiles.source(name).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
