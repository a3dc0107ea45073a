//! Guests of the contract's worlds, made from nothing: each has a world's imports and exports, and bodies of the fuzzer's choice.

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use plugin::World;
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, DataSection, ExportKind, ExportSection, Function,
    FunctionSection, GlobalSection, GlobalType, ImportSection, Instruction, MemArg, MemorySection,
    MemoryType, Module, TypeSection, ValType,
};
use wasmparser::{CompositeInnerType, ExternalKind, Parser, Payload, TypeRef};
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve, SourceMap};

/// A function's type.
#[derive(Clone, Debug)]
struct Signature {
    params: Vec<ValType>,
    results: Vec<ValType>,
}

/// A world, as a core module sees it.
#[derive(Debug)]
pub struct Shape {
    /// A module with the world's imports and exports, whose bodies do nothing.
    pub dummy: Vec<u8>,
    imports: Vec<(String, String, Signature)>,
    exports: Vec<(String, Signature)>,
    /// The custom section that says which world it is.
    says: Vec<u8>,
}

const WORLDS: [World; 3] = [
    World::EnvironmentPlugin,
    World::JudgePlugin,
    World::RewardPlugin,
];
/// Where a guest's own allocator begins; below lies what the fuzzer wrote.
const HEAP: i32 = 32 << 10;
const PAGES: u64 = 4;
/// Where the polite answers lie, and in them: the list of tasks, the episode that began, and the name.
const CARD: i32 = 24 << 10;
const TASKS: i32 = 40;
const BEGUN: i32 = 64;
const TEXT: i32 = 80;
/// What every guest is called.
pub const NAME: &str = "fuzzed";
const WORD: MemArg = MemArg {
    offset: 0,
    align: 0,
    memory_index: 0,
};

static SHAPES: LazyLock<Vec<Shape>> =
    LazyLock::new(|| WORLDS.iter().map(|world| shape(*world)).collect());

/// A world of the fuzzer's choice.
///
/// # Errors
/// It has no more to say.
pub fn world(u: &mut Unstructured<'_>) -> Result<(World, &'static Shape)> {
    let at = u.choose_index(WORLDS.len())?;
    Ok((WORLDS[at], &SHAPES[at]))
}

fn shape(world: World) -> Shape {
    let files = bundled::kit::FILES.iter();
    let text: Vec<_> = files.filter(|file| file.path.ends_with(".wit")).collect();
    let mut map = SourceMap::new();
    for file in text {
        map.push_str(file.path, file.text);
    }
    let group = map.parse().expect("the contract is valid");
    let mut resolve = Resolve::default();
    let package = resolve.push_group(group).expect("the contract is whole");
    let id = resolve
        .select_world(&[package], Some(world.as_str()))
        .expect("the contract has the world");
    let mangling = ManglingAndAbi::Legacy(LiftLowerAbi::Sync);
    let dummy = dummy_module(&resolve, id, mangling);
    let mut empty = Module::new().finish();
    let header = empty.len();
    embed_component_metadata(&mut empty, &resolve, id, StringEncoding::UTF8, false)
        .expect("the world can be encoded");
    let says = empty.split_off(header);
    read(dummy, says)
}

fn read(dummy: Vec<u8>, says: Vec<u8>) -> Shape {
    let mut types = Vec::new();
    let mut functions = Vec::new();
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(&dummy) {
        match payload.expect("a dummy module is valid") {
            Payload::TypeSection(section) => {
                for group in section {
                    for ty in group.expect("as above").types() {
                        if let CompositeInnerType::Func(ty) = &ty.composite_type.inner {
                            let all =
                                |types: &[wasmparser::ValType]| types.iter().map(value).collect();
                            types.push(Signature {
                                params: all(ty.params()),
                                results: all(ty.results()),
                            });
                        }
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.expect("as above");
                    if let TypeRef::Func(ty) = import.ty {
                        let ty: Signature = types[ty as usize].clone();
                        functions.push(ty.clone());
                        imports.push((import.module.to_owned(), import.name.to_owned(), ty));
                    }
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section {
                    functions.push(types[ty.expect("as above") as usize].clone());
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.expect("as above");
                    if export.kind == ExternalKind::Func {
                        let ty = functions[export.index as usize].clone();
                        exports.push((export.name.to_owned(), ty));
                    }
                }
            }
            _ => {}
        }
    }
    Shape {
        dummy,
        imports,
        exports,
        says,
    }
}

fn value(ty: &wasmparser::ValType) -> ValType {
    match ty {
        wasmparser::ValType::I32 => ValType::I32,
        wasmparser::ValType::I64 => ValType::I64,
        wasmparser::ValType::F32 => ValType::F32,
        wasmparser::ValType::F64 => ValType::F64,
        other => unreachable!("the canonical ABI has no {other}"),
    }
}

impl Shape {
    /// A component of a module that has this shape.
    ///
    /// # Errors
    /// The module does not fit the world after all.
    pub fn component(&self, module: &[u8]) -> std::result::Result<Vec<u8>, String> {
        let whole = [module, &self.says].concat();
        ComponentEncoder::default()
            .module(&whole)
            .and_then(|encoder| encoder.validate(false).encode())
            .map_err(|error| format!("{error:#}"))
    }

    /// A module whose functions ask the host for anything, and answer with anything: numbers, and pointers into a memory that is filled
    /// with more of them.
    ///
    /// # Errors
    /// The fuzzer has no more to say.
    pub fn module(&self, u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let (mut types, mut imports) = (TypeSection::new(), ImportSection::new());
        let (mut functions, mut exports) = (FunctionSection::new(), ExportSection::new());
        let mut code = CodeSection::new();
        let all = self.imports.iter().map(|(_, _, ty)| ty);
        for ty in all.chain(self.exports.iter().map(|(_, ty)| ty)) {
            types
                .ty()
                .function(ty.params.iter().copied(), ty.results.iter().copied());
        }
        let mut index = 0;
        for (module, name, _) in &self.imports {
            imports.import(module, name, wasm_encoder::EntityType::Function(index));
            index += 1;
        }
        for (name, ty) in &self.exports {
            functions.function(index);
            exports.export(name, ExportKind::Func, index);
            index += 1;
            let polite = self.polite(name);
            code.function(&match polite {
                Some(polite) if u.ratio(15, 16)? => polite,
                _ => self.body(u, ty)?,
            });
        }
        exports.export("memory", ExportKind::Memory, 0);
        let mut memories = MemorySection::new();
        memories.memory(MemoryType {
            minimum: PAGES,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        let mut globals = GlobalSection::new();
        let heap = GlobalType {
            val_type: ValType::I32,
            mutable: true,
            shared: false,
        };
        globals.global(heap, &ConstExpr::i32_const(HEAP));
        let mut words = Vec::new();
        while !u.is_empty() && words.len() < 4096 {
            words.extend(word(u)?.to_le_bytes());
        }
        let mut data = DataSection::new();
        data.active(0, &ConstExpr::i32_const(0), words);
        data.active(0, &ConstExpr::i32_const(CARD), card());
        let mut module = Module::new();
        module
            .section(&types)
            .section(&imports)
            .section(&functions)
            .section(&memories)
            .section(&globals)
            .section(&exports)
            .section(&code)
            .section(&data);
        Ok(module.finish())
    }

    /// What a function does where anything else ends the acquaintance: a host calls nothing more of an environment whose name is
    /// wrong, or of an episode that did not begin.
    fn polite(&self, name: &str) -> Option<Function> {
        // Beside each function there is one that frees what it answered, `cabi_post_…`.
        let own = name.strip_prefix("nextstate:plugin/environment@0.1.0#");
        let instructions = match own.unwrap_or(name) {
            "cabi_realloc" => vec![
                Instruction::GlobalGet(0),
                Instruction::GlobalGet(0),
                Instruction::LocalGet(3),
                Instruction::I32Add,
                Instruction::I32Const(15),
                Instruction::I32Add,
                Instruction::I32Const(-16),
                Instruction::I32And,
                Instruction::GlobalSet(0),
            ],
            // Nothing is called of a guest that breaks before it begins.
            "_initialize" => Vec::new(),
            "describe" => vec![Instruction::I32Const(CARD)],
            "tasks" => vec![Instruction::I32Const(CARD + TASKS)],
            "[static]episode.start" | "[static]episode.restore" => {
                let mut names = self.imports.iter().map(|(_, name, _)| name);
                let new = names.position(|name| name == "[resource-new]episode")?;
                vec![
                    Instruction::I32Const(CARD + BEGUN + 4),
                    Instruction::I32Const(7),
                    Instruction::Call(u32::try_from(new).expect("few")),
                    Instruction::I32Store(WORD),
                    Instruction::I32Const(CARD + BEGUN),
                ]
            }
            _ => return None,
        };
        let mut body = Function::new([]);
        for instruction in instructions {
            body.instruction(&instruction);
        }
        body.instruction(&Instruction::End);
        Some(body)
    }

    fn body(&self, u: &mut Unstructured<'_>, ty: &Signature) -> Result<Function> {
        let last = u32::try_from(ty.params.len()).expect("at most 16");
        let mut body = Function::new([(1, ValType::I32)]);
        // Few: most that is asked for with any handle and pointer ends the call, and no answer is seen.
        for _ in 0..u.int_in_range(0..=5_u32)?.saturating_sub(2) {
            // Mostly what leads on to the next thing: a guest that only loops shows one limit and nothing else.
            match u.int_in_range(0..=15)? {
                0 => abuse(u, &mut body)?,
                1..=3 => store(u, &mut body, last)?,
                _ => self.ask(u, &mut body, last)?,
            }
        }
        for result in &ty.results {
            // Answers that do not fit a register lie in memory, aligned; one that does not is refused before it is looked at.
            match result {
                ValType::I32 if u.ratio(7, 8)? => {
                    body.instruction(&Instruction::I32Const(place(u)?));
                }
                result => push(u, &mut body, *result, last)?,
            }
        }
        body.instruction(&Instruction::End);
        Ok(body)
    }

    /// Calls the host.
    fn ask(&self, u: &mut Unstructured<'_>, body: &mut Function, last: u32) -> Result<()> {
        let at = u.choose_index(self.imports.len())?;
        let (_, _, asked) = &self.imports[at];
        for param in &asked.params {
            push(u, body, *param, last)?;
        }
        body.instruction(&Instruction::Call(u32::try_from(at).expect("few")));
        for result in &asked.results {
            // What the host gave, a handle perhaps, is there for the next call.
            body.instruction(&match result {
                ValType::I32 => Instruction::LocalSet(last),
                _ => Instruction::Drop,
            });
        }
        Ok(())
    }
}

/// Writes a word, or what the host gave.
fn store(u: &mut Unstructured<'_>, body: &mut Function, last: u32) -> Result<()> {
    body.instruction(&Instruction::I32Const(word(u)?));
    push(u, body, ValType::I32, last)?;
    body.instruction(&Instruction::I32Store(WORD));
    Ok(())
}

/// What a limit, or a trap, must end.
fn abuse(u: &mut Unstructured<'_>, body: &mut Function) -> Result<()> {
    let own = |u: &mut Unstructured<'_>| u.int_in_range(0..=3);
    match u.int_in_range(0..=3)? {
        0 => body
            .instruction(&Instruction::Loop(BlockType::Empty))
            .instruction(&Instruction::Br(0))
            .instruction(&Instruction::End),
        1 => body
            .instruction(&Instruction::I32Const(word(u)?))
            .instruction(&Instruction::MemoryGrow(0))
            .instruction(&Instruction::Drop),
        2 => body
            .instruction(&Instruction::I32Const(word(u)?))
            .instruction(&Instruction::I32Const(own(u)?))
            .instruction(&Instruction::I32Const(word(u)?))
            .instruction(&Instruction::MemoryFill(0)),
        _ => body.instruction(&Instruction::Unreachable),
    };
    Ok(())
}

/// The answers of [`Shape::polite`], as the canonical ABI lays them out.
fn card() -> Vec<u8> {
    let mut bytes = vec![0; 128];
    let mut put = |at: i32, words: &[i32]| {
        let at = usize::try_from(at).expect("it is in the card");
        for (word, place) in words.iter().zip(bytes[at..].chunks_exact_mut(4)) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    };
    // Ok: name, version, kinds of action and observation, no tools, no capabilities.
    put(0, &[0, CARD + TEXT, 6, CARD + TEXT, 1, 0, 0, 0, 0]);
    // Ok: one task.
    put(TASKS, &[0, CARD + TASKS + 12, 1, CARD + TEXT, 6]);
    put(BEGUN, &[0, 0]);
    let text = usize::try_from(TEXT).expect("as above");
    bytes[text..text + NAME.len()].copy_from_slice(NAME.as_bytes());
    bytes
}

fn push(u: &mut Unstructured<'_>, body: &mut Function, ty: ValType, last: u32) -> Result<()> {
    let instruction = match ty {
        ValType::I32 if u.ratio(1, 4)? => Instruction::LocalGet(last),
        ValType::I32 => Instruction::I32Const(word(u)?),
        ValType::I64 => Instruction::I64Const(u.arbitrary()?),
        ValType::F32 => Instruction::F32Const(f32::from_bits(u.arbitrary()?).into()),
        _ => Instruction::F64Const(f64::from_bits(u.arbitrary()?).into()),
    };
    body.instruction(&instruction);
    Ok(())
}

/// A word that is likely to mean something: a discriminant, a length, a place in memory.
fn word(u: &mut Unstructured<'_>) -> Result<i32> {
    Ok(match u.int_in_range(0..=15)? {
        0..=5 => 0,
        6..=8 => u.int_in_range(1..=3)?,
        9 => u.int_in_range(0..=300)?,
        10..=13 => place(u)?,
        14 => u.int_in_range(-1..=(4 << 16) + 1)?,
        _ => u.arbitrary()?,
    })
}

/// Where something of any type may begin.
fn place(u: &mut Unstructured<'_>) -> Result<i32> {
    Ok(u.int_in_range(0..=511)? * 8)
}
