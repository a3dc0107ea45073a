//! The contract as it is read from `wit/*.wit`: worlds and interfaces, their types and functions, each with its comment.

use anyhow::{Context as _, anyhow};
use bundled::kit;
use wit_parser::{
    Docs, Function, FunctionKind, Handle, Interface as Parsed, Resolve, SourceMap, Type, TypeDef,
    TypeDefKind, TypeId, World as ParsedWorld, WorldItem, WorldKey,
};

/// All of it.
#[derive(Debug)]
pub(super) struct Contract {
    /// `nextstate:plugin@0.1.0`
    pub(super) package: String,
    pub(super) doc: String,
    pub(super) worlds: Vec<World>,
    pub(super) interfaces: Vec<Interface>,
}

/// What a component of one kind imports and exports.
#[derive(Debug)]
pub(super) struct World {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) imports: Vec<String>,
    pub(super) exports: Vec<String>,
}

/// Types and functions that belong together.
#[derive(Debug)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) doc: String,
    /// Other interfaces' types that have their names here, as `types.fault`.
    pub(super) uses: Vec<String>,
    pub(super) types: Vec<Item>,
    pub(super) functions: Vec<Item>,
}

/// A type or a function.
#[derive(Debug)]
pub(super) struct Item {
    /// Its name; of a resource's function, `machine.run`.
    pub(super) name: String,
    /// Its first line in the contract: `record message`, `bits: func() -> u32`.
    pub(super) head: String,
    pub(super) doc: String,
    pub(super) parts: Vec<Part>,
}

/// A field, a case or a flag.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: String,
    /// Of fields, and of cases that carry something.
    pub(super) kind: Option<String>,
    pub(super) doc: String,
}

impl Contract {
    /// The contract that is in this program.
    ///
    /// # Errors
    /// It is not valid, which a test rules out.
    pub(super) fn read() -> anyhow::Result<Self> {
        let mut sources = SourceMap::new();
        for file in kit::FILES.iter().filter(|file| file.path.ends_with(".wit")) {
            sources.push_str(file.path, file.text);
        }
        let failed = "failed to read the contract in this program";
        let group = sources
            .parse()
            .map_err(|(_, error)| anyhow!("{error:?}"))
            .context(failed)?;
        let mut resolve = Resolve::default();
        let id = resolve
            .push_group(group)
            .map_err(|error| anyhow!("{error:?}"))
            .context(failed)?;
        let package = &resolve.packages[id];
        let interfaces = package.interfaces.values();
        let worlds = package.worlds.values();
        Ok(Self {
            package: package.name.to_string(),
            doc: doc(&package.docs),
            worlds: worlds
                .map(|id| world(&resolve, &resolve.worlds[*id]))
                .collect(),
            interfaces: interfaces
                .map(|id| interface(&resolve, &resolve.interfaces[*id]))
                .collect(),
        })
    }

    /// What can be asked for.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let worlds = self.worlds.iter().map(|world| world.name.as_str());
        worlds.chain(self.interfaces.iter().map(|one| one.name.as_str()))
    }
}

impl Interface {
    /// Types, then functions.
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.types.iter().chain(&self.functions)
    }
}

impl Item {
    /// Whether its parts are names and nothing more, so that they fit a line.
    pub(super) fn is_plain(&self) -> bool {
        let plain = |part: &Part| part.kind.is_none() && part.doc.is_empty();
        self.parts.iter().all(plain)
    }
}

fn doc(docs: &Docs) -> String {
    docs.contents
        .as_deref()
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn world(resolve: &Resolve, world: &ParsedWorld) -> World {
    let names = |items: &mut dyn Iterator<Item = (&WorldKey, &WorldItem)>| {
        let name = |(key, _): (&WorldKey, &WorldItem)| match key {
            WorldKey::Name(name) => name.clone(),
            WorldKey::Interface(id) => resolve.interfaces[*id].name.clone().unwrap_or_default(),
        };
        items.map(name).collect()
    };
    World {
        name: world.name.clone(),
        doc: doc(&world.docs),
        imports: names(&mut world.imports.iter()),
        exports: names(&mut world.exports.iter()),
    }
}

fn interface(resolve: &Resolve, parsed: &Parsed) -> Interface {
    let mut uses = Vec::new();
    let mut types = Vec::new();
    for (name, id) in &parsed.types {
        let definition = &resolve.types[*id];
        match foreign(resolve, definition) {
            Some(home) => uses.push(format!("{home}.{name}")),
            None => types.push(item(resolve, name, definition)),
        }
    }
    let functions = parsed.functions.values();
    Interface {
        name: parsed.name.clone().unwrap_or_default(),
        doc: doc(&parsed.docs),
        uses,
        types,
        functions: functions.map(|one| function(resolve, one)).collect(),
    }
}

/// The interface that a type comes from, where that is another.
fn foreign(resolve: &Resolve, definition: &TypeDef) -> Option<String> {
    let TypeDefKind::Type(Type::Id(id)) = definition.kind else {
        return None;
    };
    let home = resolve.types[id].owner;
    if home == definition.owner {
        return None;
    }
    match home {
        wit_parser::TypeOwner::Interface(id) => resolve.interfaces[id].name.clone(),
        _ => None,
    }
}

fn item(resolve: &Resolve, name: &str, definition: &TypeDef) -> Item {
    let part = |name: &str, kind: Option<&Type>, docs: &Docs| Part {
        name: name.to_owned(),
        kind: kind.map(|kind| shown(resolve, kind)),
        doc: doc(docs),
    };
    let mut head = format!("{} {name}", definition.kind.as_str());
    let parts = match &definition.kind {
        TypeDefKind::Record(record) => {
            let fields = record.fields.iter();
            fields
                .map(|f| part(&f.name, Some(&f.ty), &f.docs))
                .collect()
        }
        TypeDefKind::Variant(variant) => {
            let cases = variant.cases.iter();
            cases
                .map(|c| part(&c.name, c.ty.as_ref(), &c.docs))
                .collect()
        }
        TypeDefKind::Enum(cases) => {
            let cases = cases.cases.iter();
            cases.map(|c| part(&c.name, None, &c.docs)).collect()
        }
        TypeDefKind::Flags(flags) => {
            let flags = flags.flags.iter();
            flags.map(|f| part(&f.name, None, &f.docs)).collect()
        }
        TypeDefKind::Resource => Vec::new(),
        other => {
            head = format!("type {name} = {}", structure(resolve, other));
            Vec::new()
        }
    };
    Item {
        name: name.to_owned(),
        head,
        doc: doc(&definition.docs),
        parts,
    }
}

fn function(resolve: &Resolve, function: &Function) -> Item {
    let of = |id: TypeId| resolve.types[id].name.clone().unwrap_or_default();
    let (name, word, own) = match function.kind {
        FunctionKind::Method(id) => (format!("{}.{}", of(id), function.item_name()), "func", 1),
        FunctionKind::Static(id) => (
            format!("{}.{}", of(id), function.item_name()),
            "static func",
            0,
        ),
        FunctionKind::Constructor(id) => (of(id), "constructor", 0),
        _ => (function.name.clone(), "func", 0),
    };
    let params = function.params.iter().skip(own);
    let params: Vec<String> = params
        .map(|param| format!("{}: {}", param.name, shown(resolve, &param.ty)))
        .collect();
    let result = function.result.as_ref();
    let result = result.map_or_else(String::new, |ty| format!(" -> {}", shown(resolve, ty)));
    Item {
        head: format!("{name}: {word}({}){result}", params.join(", ")),
        name,
        doc: doc(&function.docs),
        parts: Vec::new(),
    }
}

/// A type as the contract writes it.
fn shown(resolve: &Resolve, ty: &Type) -> String {
    let word = match ty {
        Type::Id(id) => {
            let definition = &resolve.types[*id];
            let name = definition.name.clone();
            return name.unwrap_or_else(|| structure(resolve, &definition.kind));
        }
        Type::Bool => "bool",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::S8 => "s8",
        Type::S16 => "s16",
        Type::S32 => "s32",
        Type::S64 => "s64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::ErrorContext => "error-context",
    };
    word.to_owned()
}

fn structure(resolve: &Resolve, kind: &TypeDefKind) -> String {
    let one = |ty: &Type| shown(resolve, ty);
    let name = |id: &TypeId| shown(resolve, &Type::Id(*id));
    match kind {
        TypeDefKind::Type(ty) => one(ty),
        TypeDefKind::List(ty) => format!("list<{}>", one(ty)),
        TypeDefKind::Option(ty) => format!("option<{}>", one(ty)),
        TypeDefKind::Result(result) => match (&result.ok, &result.err) {
            (None, None) => "result".to_owned(),
            (Some(ok), None) => format!("result<{}>", one(ok)),
            (ok, Some(error)) => {
                let ok = ok.as_ref().map_or_else(|| "_".to_owned(), one);
                format!("result<{ok}, {}>", one(error))
            }
        },
        TypeDefKind::Tuple(tuple) => {
            let all: Vec<String> = tuple.types.iter().map(one).collect();
            format!("tuple<{}>", all.join(", "))
        }
        TypeDefKind::Handle(Handle::Own(id)) => name(id),
        TypeDefKind::Handle(Handle::Borrow(id)) => format!("borrow<{}>", name(id)),
        // Nothing else has a structure without a name in this contract.
        other => other.as_str().to_owned(),
    }
}
