//! A small GGUF writer, so that tests can make valid files and spoil them.

use half::f16;

/// Everything that a file is made of.
pub(crate) struct Writer {
    pub(crate) pairs: Vec<(String, Vec<u8>)>,
    pub(crate) tensors: Vec<Stored>,
}

/// One tensor: shape fastest axis last, ggml's type, bytes.
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) kind: u32,
    pub(crate) data: Vec<u8>,
}

/// 1, 2, 3, …
pub(crate) fn numbers(count: usize) -> Vec<f32> {
    (1..=count).map(|n| n as f32).collect()
}

pub(crate) fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

/// A value: its type, then its bytes.
pub(crate) fn value(kind: u32, bytes: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes(), bytes].concat()
}

pub(crate) fn list(kind: u32, items: &[Vec<u8>]) -> Vec<u8> {
    let head = [
        kind.to_le_bytes().to_vec(),
        (items.len() as u64).to_le_bytes().to_vec(),
    ];
    value(9, &[head.concat(), items.concat()].concat())
}

pub(crate) fn string(v: &str) -> Vec<u8> {
    value(8, &text(v))
}

pub(crate) fn int(n: u32) -> Vec<u8> {
    value(4, &n.to_le_bytes())
}

impl Writer {
    pub(crate) fn set(&mut self, key: &str, value: Vec<u8>) {
        self.pairs.retain(|(k, _)| k != key);
        self.pairs.push((key.into(), value));
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, value) in &self.pairs {
            out.extend(text(key));
            out.extend(value);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            out.extend(text(&tensor.name));
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            out.extend(tensor.shape.iter().rev().flat_map(|n| n.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset = (offset + tensor.data.len() as u64).next_multiple_of(32);
        }
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(&tensor.data);
        }
        out
    }
}

/// A Llama with one layer: width 8, two heads of 4, one key head, a byte-level tokenizer.
pub(crate) fn llama() -> Writer {
    let mut file = Writer {
        pairs: Vec::new(),
        tensors: Vec::new(),
    };
    file.set("general.architecture", string("llama"));
    for (key, n) in [
        ("block_count", 1),
        ("context_length", 16),
        ("embedding_length", 8),
        ("feed_forward_length", 12),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
    ] {
        file.set(&format!("llama.{key}"), int(n));
    }
    file.set(
        "llama.attention.layer_norm_rms_epsilon",
        value(6, &1e-5f32.to_le_bytes()),
    );
    let count = tokenizer(&mut file);
    let single = |n: u64| {
        numbers(n as usize)
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect()
    };
    let half = |n: u64| {
        vec![f16::from_f32(0.5); n as usize]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect()
    };
    for (name, shape) in [
        ("output_norm", vec![8]),
        ("blk.0.attn_norm", vec![8]),
        ("blk.0.ffn_norm", vec![8]),
        ("blk.0.attn_q", vec![8, 8]),
        ("blk.0.attn_k", vec![4, 8]),
        ("blk.0.attn_v", vec![4, 8]),
        ("blk.0.attn_output", vec![8, 8]),
        ("blk.0.ffn_gate", vec![12, 8]),
        ("blk.0.ffn_up", vec![12, 8]),
        ("blk.0.ffn_down", vec![8, 12]),
    ] {
        let data = single(shape.iter().product());
        file.tensors.push(Stored {
            name: format!("{name}.weight"),
            shape,
            kind: 0,
            data,
        });
    }
    let (name, shape) = ("token_embd.weight".to_owned(), vec![count, 8]);
    file.tensors.push(Stored {
        name,
        data: half(count * 8),
        shape,
        kind: 1,
    });
    file
}

/// Two control tokens, the bytes, one merge; returns how many tokens there are.
fn tokenizer(file: &mut Writer) -> u64 {
    let alphabet = (33..=126).chain(161..=172).chain(174..=255).chain(256..324);
    let alphabet: Vec<String> = alphabet
        .filter_map(char::from_u32)
        .map(String::from)
        .collect();
    let mut tokens = vec!["<|begin|>".to_owned(), "<|end|>".to_owned()];
    tokens.extend(alphabet);
    tokens.push("he".into());
    let count = tokens.len() as u64;
    let kinds: Vec<Vec<u8>> = (0..count)
        .map(|id| if id < 2 { 3i32 } else { 1 }.to_le_bytes().to_vec())
        .collect();
    file.set("tokenizer.ggml.model", string("gpt2"));
    file.set("tokenizer.ggml.pre", string("smollm"));
    file.set(
        "tokenizer.ggml.tokens",
        list(8, &tokens.iter().map(|t| text(t)).collect::<Vec<_>>()),
    );
    file.set("tokenizer.ggml.token_type", list(5, &kinds));
    file.set("tokenizer.ggml.merges", list(8, &[text("h e")]));
    file.set("tokenizer.ggml.bos_token_id", int(0));
    file.set("tokenizer.ggml.eos_token_id", int(1));
    count
}
