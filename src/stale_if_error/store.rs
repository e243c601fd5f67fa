//! What is kept: by URI, and there by what the responses vary by.
//!
//! The cache crate bounds it by bytes, and no clock but the circuit's decides:
//! each response has its instant with it. One lock around everything keeps the
//! changes of one URI in their order; a response waits for it once, when its
//! body has come to its end, and what is kept is looked at only if there is an
//! error.

use std::{
    fmt,
    hash::RandomState,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Version, header::AGE, uri::Scheme};
use quick_cache::{
    OptionsBuilder, Weighter,
    unsync::{Cache, DefaultLifecycle},
};

use super::rules::{Audience, Life, Selection, accepts, freshened, selection, selects};
use crate::Clock;

/// How many responses of one URI are kept: the latest.
const VARIANTS: usize = 16;

/// What a response costs beside its bytes, and a URI: places in maps and lists,
/// and pointers. So the number of either is bounded too.
const OVERHEAD: usize = 512;

/// How a layer was set.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) ttl: Duration,
    pub(super) max_bytes: u64,
    pub(super) max_response_bytes: usize,
    pub(super) audience: Audience,
    pub(super) on_any_error: bool,
    pub(super) on_server_errors: bool,
    pub(super) clock: Clock,
}

pub(super) struct Store {
    pub(super) settings: Settings,
    pages: Mutex<Cache<String, Page, Weights, RandomState>>,
}

/// What is kept of one URI.
#[derive(Clone)]
struct Page {
    /// The latest first.
    variants: Vec<Arc<Kept>>,
    /// When it was last known to have changed: no earlier request's response is
    /// kept any more.
    changed: Option<Instant>,
    weight: u64,
}

/// A response.
pub(super) struct Kept {
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Which requests it may answer.
    pub(super) scheme: Option<Scheme>,
    pub(super) selection: Selection,
    /// When its request was sent.
    pub(super) asked: Instant,
    pub(super) life: Life,
}

impl Store {
    pub(super) fn new(settings: Settings) -> Self {
        let responses = settings.max_bytes / (OVERHEAD as u64 * 8);
        let options = OptionsBuilder::new()
            .weight_capacity(settings.max_bytes)
            .estimated_items_capacity(usize::try_from(responses).unwrap_or(usize::MAX).min(1 << 16))
            .build();
        let Ok(options) = options else { unreachable!("all that is wanted is set") };
        let pages =
            Cache::with_options(options, Weights, RandomState::new(), DefaultLifecycle::default());
        Self { settings, pages: Mutex::new(pages) }
    }

    /// What may answer this request now, and how old it is.
    pub(super) fn find(
        &self,
        key: &str,
        scheme: Option<&Scheme>,
        request: &HeaderMap,
    ) -> Option<(Arc<Kept>, Duration)> {
        let now = self.settings.clock.now();
        let kept = self.select(key, scheme, request)?;
        let age = kept.age(now);
        let answers =
            kept.life.answers_at(age) && accepts(request, age.saturating_sub(kept.life.fresh));
        answers.then_some((kept, age))
    }

    /// Takes a 304 for a new response, if it says that what is kept for this
    /// request is what would have come.
    pub(super) fn freshen(
        &self,
        key: String,
        scheme: Option<Scheme>,
        request: &HeaderMap,
        not_modified: &HeaderMap,
        asked: Instant,
    ) {
        let anew = self.select(&key, scheme.as_ref(), request).and_then(|kept| {
            let mut headers = freshened(&kept.headers, not_modified)?;
            let Settings { audience, ttl, .. } = self.settings;
            let life = Life::of(request, &headers, audience, ttl)?;
            headers.remove(AGE);
            let selection = selection(request, &headers)?;
            let (version, body) = (kept.version, kept.body.clone());
            Some(Kept { version, headers, body, scheme, selection, asked, life })
        });
        if let Some(anew) = anew {
            self.keep(key, anew);
        }
    }

    fn select(&self, key: &str, scheme: Option<&Scheme>, request: &HeaderMap) -> Option<Arc<Kept>> {
        let pages = self.lock();
        let page = pages.get(key)?;
        let is_selected =
            |kept: &&Arc<Kept>| kept.scheme.as_ref() == scheme && selects(&kept.selection, request);
        page.variants.iter().find(is_selected).cloned()
    }

    /// Keeps a response in place of those it replaces, unless there is a later
    /// one.
    pub(super) fn keep(&self, key: String, kept: Kept) {
        let mut pages = self.lock();
        let page = pages.peek(&key);
        let changed = page.and_then(|page| page.changed);
        if changed.is_some_and(|changed| kept.asked <= changed) {
            return;
        }
        let known = page.map(|page| &*page.variants).unwrap_or_default();
        let is_same =
            |other: &&Arc<Kept>| other.scheme == kept.scheme && other.selection == kept.selection;
        if known.iter().any(|other| is_same(&other) && other.asked > kept.asked) {
            return;
        }
        let others: Vec<_> = known.iter().filter(|other| !is_same(other)).cloned().collect();
        let mut variants = vec![Arc::new(kept)];
        // Where the latest alone is too much for the cache, that lets it go.
        let mut weight = variants[0].weight();
        for other in others.into_iter().take(VARIANTS - 1) {
            weight += other.weight();
            if weight > self.settings.max_bytes / 2 {
                break;
            }
            variants.push(other);
        }
        variants.sort_by_key(|kept| std::cmp::Reverse(kept.asked));
        pages.insert(key, Page::new(variants, changed));
    }

    /// Forgets what is kept of a URI, and what is on its way.
    pub(super) fn forget(&self, key: String) {
        let changed = self.settings.clock.now();
        self.lock().insert(key, Page::new(Vec::new(), Some(changed)));
    }

    fn lock(&self) -> MutexGuard<'_, Cache<String, Page, Weights, RandomState>> {
        // The cache calls nothing of ours in there but arithmetic.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    fn new(variants: Vec<Arc<Kept>>, changed: Option<Instant>) -> Self {
        let weight = variants.iter().map(|kept| kept.weight()).sum();
        Self { variants, changed, weight }
    }
}

impl Kept {
    fn age(&self, now: Instant) -> Duration {
        self.life.age.saturating_add(now.saturating_duration_since(self.asked))
    }

    fn weight(&self) -> u64 {
        let field = |name: &str, value: &http::HeaderValue| name.len() + value.len() + 64;
        let headers: usize =
            self.headers.iter().map(|(name, value)| field(name.as_str(), value)).sum();
        let selection: usize = self
            .selection
            .iter()
            .map(|(name, values)| {
                64 + values.iter().map(|value| field(name.as_str(), value)).sum::<usize>()
            })
            .sum();
        (OVERHEAD + self.body.len() + headers + selection) as u64
    }
}

#[derive(Clone)]
struct Weights;

impl Weighter<String, Page> for Weights {
    fn weight(&self, key: &String, page: &Page) -> u64 {
        (OVERHEAD + key.len()) as u64 + page.weight
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (uris, bytes) = {
            let pages = self.lock();
            (pages.len(), pages.weight())
        };
        let Settings { ttl, max_bytes, max_response_bytes, .. } = self.settings;
        f.debug_struct("Store")
            .field("ttl", &ttl)
            .field("max_bytes", &max_bytes)
            .field("max_response_bytes", &max_response_bytes)
            .field("uris", &uris)
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}
