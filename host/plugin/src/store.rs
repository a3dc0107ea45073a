//! The capability `store`, as a guest calls it: counts, limits, and hands over to [`crate::outside::Stores`].
//!
//! An instance is lent a session for its episode, or for its one turn of live traffic; without one it has no store. Whose session it is
//! was decided by whoever opened it: nothing here knows a tenant.

use rl::store::Session;

use crate::{
    bindings::{store as wit, types::Fault},
    capabilities::{Answer, State},
    outside::{Refusal, Store},
};

/// What an instance was lent.
#[derive(Default)]
pub(crate) enum Lent {
    #[default]
    Nothing,
    /// Until the first call.
    Session(Session),
    Store(Box<dyn Store>),
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Lent::Nothing => "Nothing",
            Lent::Session(_) => "Session",
            Lent::Store(_) => "Store",
        })
    }
}

impl State {
    fn stored<T>(
        &mut self,
        passed: usize,
        call: impl FnOnce(&mut dyn Store) -> Result<T, Refusal>,
    ) -> Answer<T> {
        let unsupported = |why: &str| Ok(Err(Fault::Unsupported(why.to_owned())));
        let Some(stores) = self.offers().store.clone() else {
            return unsupported("this host offers no store");
        };
        let mut store = match std::mem::take(&mut self.lent) {
            // Attack: a tenant's values that an instance carries to the next tenant's call; instances that serve several have no store.
            Lent::Nothing => {
                return unsupported("`store` is for hosted episodes and for `next-state`");
            }
            Lent::Session(session) => stores.open(session),
            Lent::Store(store) => store,
        };
        let answer = self.outside(passed, |_| Ok(call(store.as_mut())));
        self.lent = Lent::Store(store);
        answer
    }
}

impl wit::Host for State {
    fn get(&mut self, key: String) -> Answer<Option<Vec<u8>>> {
        self.stored(key.len(), |store| store.get(&key))
    }

    fn put(&mut self, key: String, value: Vec<u8>) -> Answer<()> {
        self.stored(key.len() + value.len(), |store| store.put(&key, &value))
    }

    fn remove(&mut self, key: String) -> Answer<()> {
        self.stored(key.len(), |store| store.remove(&key))
    }

    fn keys(&mut self, prefix: String) -> Answer<Vec<String>> {
        self.stored(prefix.len(), |store| store.keys(&prefix))
    }
}
