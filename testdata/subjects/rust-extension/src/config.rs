//! What the environment says: the changes that are on, and the configuration.

use std::{env, fs};

/// The changes that are chosen at run time.
#[derive(Clone, Copy, Default)]
pub struct Changes {
    pub h1: bool,
    pub h2: bool,
    pub h4: bool,
    pub h15: bool,
}

impl Changes {
    /// Reads `INITPROF_EXTENSION_CHANGES`. Names that are not known here (h3,
    /// tags) mean nothing to this extension.
    pub fn from_env() -> Self {
        let text = env::var("INITPROF_EXTENSION_CHANGES").unwrap_or_default();
        let on = |change: &str| text == "all" || text.split(',').any(|word| word.trim() == change);
        Self { h1: on("h1"), h2: on("h2"), h4: on("h4"), h15: on("h15") }
    }
}

/// h15: a thread for each 1769 MB, at least 1 and at most 4; 2 where the size is
/// not told.
pub fn workers() -> usize {
    env::var("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        .ok()
        .and_then(|text| text.parse::<f64>().ok())
        .map_or(2, |mb| (mb / 1769.0).round().clamp(1.0, 4.0) as usize)
}

/// The configuration: `DD_*` and the top level of `datadog.yaml`.
pub struct Config {
    pub settings: usize,
}

impl Config {
    pub fn load() -> Self {
        let root = env::var("LAMBDA_TASK_ROOT").unwrap_or_else(|_| "/var/task".into());
        let file = fs::read_to_string(format!("{root}/datadog.yaml")).unwrap_or_default();
        let keys = file.lines().filter(|line| !line.starts_with([' ', '#']) && line.contains(':'));
        let variables = env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DD_"));
        Self { settings: keys.count() + variables.count() }
    }
}
