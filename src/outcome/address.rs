//! What the probe of each of several addresses found.
//! It must never hold a credential or a query: it is shown wherever the probe is.

use serde::{Deserialize, Serialize};

use super::Verdict;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressResult {
    /// Different for each address of a target.
    pub address: String,
    #[serde(flatten)]
    pub verdict: Verdict,
    pub latency_ms: u64,
}
