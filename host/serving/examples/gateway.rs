//! A gateway that records nothing, for trying clients: `cargo run -p serving --example gateway -- ADDRESS [MODEL]`.
//!
//! Without a model (a Hugging Face folder or a GGUF file) it needs no download: it answers "Hello big wörld." to
//! everything, and calls `weather` when `tool_choice` demands a call. The names are `example` and `example:main`. Ends
//! when its standard input does.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "an example")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use policy::{Adapter, ChatTemplate, Checkpoint, Deployed, Dtype, Model, Pool, Slot};
use prometheus_client::registry::Registry;
use rl::PolicyVersion;
use rl::seam::MemorySink;
use serving::engine::{self, Engine, Parts};
use serving::gateway::{self, Backend, Gateway, Operator};
use tokio::io::AsyncReadExt;

#[path = "../tests/common/tiny.rs"]
mod tiny;

#[tokio::main]
async fn main() {
    let listen = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let config = gateway::Config {
        listen: listen.parse().unwrap(),
        ..gateway::Config::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer, template) = match std::env::args().nth(2) {
        // A long context, so that a reply without an end can be cancelled at leisure.
        None => (
            tiny::scripted_model(folder.path(), 65_536),
            tiny::tokenizer(),
            ChatTemplate::chatml(),
        ),
        Some(path) => {
            let checkpoint = Checkpoint::open(path.as_ref()).unwrap();
            let pool = Arc::new(Pool::new(Pool::default_threads()).unwrap());
            let model = Arc::new(Model::load(&checkpoint, Dtype::Bf16, pool).unwrap());
            (
                model,
                checkpoint.tokenizer().unwrap(),
                checkpoint.template().unwrap(),
            )
        }
    };
    let adapter = Adapter::init(model.config(), 4, 8.0, 1).unwrap();
    let version = PolicyVersion::new(1);
    let slot = Slot::new(Deployed {
        version,
        adapter: Some(Arc::new(adapter)),
    });
    let parts = Parts {
        name: "example".into(),
        model,
        tokenizer: Arc::new(tokenizer),
        template: Arc::new(template),
        adapters: BTreeMap::from([("main".into(), Arc::new(slot))]),
    };
    let registry = Arc::new(Mutex::new(Registry::default()));
    let engine_config = engine::Config {
        context: 65_536,
        ..engine::Config::default()
    };
    let running = Engine::build(engine_config, parts, &registry)
        .unwrap()
        .start()
        .unwrap();
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs())
    };
    let gateway = Gateway::build(config, registry, Arc::new(now))
        .await
        .unwrap();
    let handle = gateway.handle();
    handle.open(Backend {
        engine: running.handle(),
        sink: Arc::new(MemorySink::default()),
        status: Arc::new(|_| serde_json::json!({})),
        operator: Operator::default(),
    });
    println!("http://{}", handle.addr());
    let end_of_input = async {
        let mut rest = Vec::new();
        let _ = tokio::io::stdin().read_to_end(&mut rest).await;
    };
    gateway.run(end_of_input).await;
    tokio::task::spawn_blocking(|| running.shutdown())
        .await
        .unwrap()
        .unwrap();
}
