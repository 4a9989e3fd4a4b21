//! What an unhealthy probe observed, so that the operator can find the cause.
//! It must never contain a secret or grow without limit.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::AddressResult;

/// At most about 24 KiB, without secrets. The text is not escaped: that must be done where it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Which of several addresses the rest is about: the one whose failure decided the verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What was found at each of several addresses; 8 KiB at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AddressResult>,
    pub phases: Phases,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The first KiB of the body, or less if less arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The last KiB of a command's output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// In microseconds; `None` for a phase that did not complete or that this kind of probe does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phases {
    pub resolve_us: Option<u64>,
    pub connect_us: Option<u64>,
    pub tls_us: Option<u64>,
    /// From the request to the first byte of the answer; over TLS, to the end of its headers.
    pub first_byte_us: Option<u64>,
    pub rest_us: Option<u64>,
}

impl Phases {
    /// The completed phases in their order, with their names.
    pub fn completed(&self) -> impl Iterator<Item = (&'static str, Duration)> + use<> {
        let Phases { resolve_us, connect_us, tls_us, first_byte_us, rest_us } = *self;
        let named = [
            ("resolve", resolve_us),
            ("connect", connect_us),
            ("TLS", tls_us),
            ("first byte", first_byte_us),
            ("rest", rest_us),
        ];
        named.into_iter().filter_map(|(name, us)| Some((name, Duration::from_micros(us?))))
    }
}
