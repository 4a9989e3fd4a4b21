//! What a look saw that found its target unhealthy, for whoever wants to know why.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bounded at about 16 KiB, without secrets. The text is as it came otherwise: whoever shows it must escape it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    pub phases: Phases,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The first KiB of its body, as far as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The last KiB of what a command printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// In microseconds; `None` for a part that did not come to its end, or is none of this look's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phases {
    pub resolve_us: Option<u64>,
    pub connect_us: Option<u64>,
    pub tls_us: Option<u64>,
    /// From the request to the first byte of its answer; over TLS, to the end of its headers.
    pub first_byte_us: Option<u64>,
    pub rest_us: Option<u64>,
}

impl Phases {
    /// The parts that came to their end, in their order, by their names.
    pub fn done(&self) -> impl Iterator<Item = (&'static str, Duration)> + use<> {
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
