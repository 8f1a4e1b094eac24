use crate::Code;

/// What the caller of a failed operation does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The same request again, after a pause: a busy server, a broken stream, a 503.
    Retry,
    /// Load the region again and send the request to its leader.
    Reroute,
    /// Stop: somebody else holds it, or the target is not empty.
    Conflict,
    /// Unwind quietly: Ctrl-C or a deadline.
    Cancelled,
    /// The user changes the input.
    Invalid,
    /// Stored bytes are wrong or missing.
    Data,
    /// A bug: a broken invariant.
    Internal,
}

impl Kind {
    /// The exit status of a command that ends with an error of this kind.
    ///
    /// [`Kind::Retry`] and [`Kind::Reroute`] reach the edge only after all retries: the cluster or
    /// the storage is out of reach.
    pub const fn exit_code(self) -> u8 {
        match self {
            Kind::Internal => 1,
            Kind::Invalid => 2,
            Kind::Data => 3,
            Kind::Conflict => 4,
            Kind::Retry | Kind::Reroute => 5,
            Kind::Cancelled => 130,
        }
    }
}

/// An error that tells its caller what to do.
///
/// `Display` is one sentence with the cause, without the code and without the next step; the
/// command joins the three.
pub trait Classify: std::error::Error {
    /// What the caller does about it.
    fn kind(&self) -> Kind;

    /// The published code, if BR has one for it.
    fn code(&self) -> Code {
        Code::of_kind(self.kind())
    }

    /// What the user does next, as one imperative sentence.
    fn next_step(&self) -> Option<String> {
        None
    }
}

impl<E: Classify> Classify for Box<E> {
    fn kind(&self) -> Kind {
        (**self).kind()
    }

    fn code(&self) -> Code {
        (**self).code()
    }

    fn next_step(&self) -> Option<String> {
        (**self).next_step()
    }
}
