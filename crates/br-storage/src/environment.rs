use std::{env, path::PathBuf};

/// The variables that settings and credentials are looked for in.
#[derive(Clone, Debug)]
pub(crate) enum Environment {
    /// Those of the process.
    Process,
    /// These and no other.
    #[cfg(test)]
    Fixed(std::collections::BTreeMap<&'static str, String>),
}

impl Environment {
    /// The value of a variable; nothing if it is empty.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let value = match self {
            Environment::Process => env::var(name).ok(),
            #[cfg(test)]
            Environment::Fixed(variables) => variables.get(name).cloned(),
        };
        value.filter(|value| !value.is_empty())
    }

    /// Whether a variable says yes.
    pub(crate) fn says_yes(&self, name: &str) -> bool {
        let value = self.get(name);
        value.is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    }

    /// The folder of the user.
    pub(crate) fn home(&self) -> PathBuf {
        PathBuf::from(self.get("HOME").unwrap_or_default())
    }
}

#[cfg(test)]
impl Environment {
    /// These variables and no other.
    pub(crate) fn of<const N: usize>(variables: [(&'static str, String); N]) -> Environment {
        Environment::Fixed(variables.into())
    }
}
