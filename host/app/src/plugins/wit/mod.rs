//! `nextstate plugin wit`: the contract as a reference, from the copy that is in this program.
//!
//! [`contract`] reads it, comments included; [`text`] writes it for a terminal and [`markdown`] as `wit/README.md`. Says nothing of its own:
//! what is missing here is missing in `wit/*.wit`.

mod contract;
mod markdown;
mod text;

use anyhow::bail;
use clap::Args;

use contract::Contract;

pub(super) use text::wrapped;

/// `nextstate plugin wit`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples: nextstate plugin wit                 what there is
          nextstate plugin wit reward          what a reward rule exports
          nextstate plugin wit types.message   one of its types
The contract's own files lie in every project that `nextstate plugin new` makes, in nextstate/wit.")]
pub struct WitArgs {
    /// An interface or a world, or a part of one as INTERFACE.NAME; without it, all are listed
    pub name: Option<String>,
    /// The whole reference in Markdown
    #[arg(long, conflicts_with = "name")]
    pub markdown: bool,
}

pub(super) fn run(args: &WitArgs) -> anyhow::Result<()> {
    let contract = Contract::read()?;
    if args.markdown {
        print!("{}", markdown::write(&contract));
        return Ok(());
    }
    let Some(name) = &args.name else {
        print!("{}", text::overview(&contract));
        return Ok(());
    };
    let (section, item) = name
        .split_once('.')
        .map_or((name.as_str(), None), |(section, item)| {
            (section, Some(item))
        });
    if let Some(world) = contract.worlds.iter().find(|world| world.name == section) {
        print!("{}", text::world(world));
        return Ok(());
    }
    let found = contract.interfaces.iter().find(|one| one.name == section);
    let Some(interface) = found else {
        let names: Vec<&str> = contract.names().collect();
        bail!(
            "the contract has no `{section}`; there is: {}",
            names.join(", ")
        );
    };
    let Some(item) = item else {
        print!("{}", text::interface(interface));
        return Ok(());
    };
    let Some(found) = interface.items().find(|one| one.name == item) else {
        let names: Vec<&str> = interface.items().map(|one| one.name.as_str()).collect();
        bail!(
            "`{section}` has no `{item}`; there is: {}",
            names.join(", ")
        );
    };
    print!("{}", text::item(found));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_reference_is_what_the_contract_says() {
        let written = markdown::write(&Contract::read().unwrap());
        let committed = bundled::kit::FILES
            .iter()
            .find(|file| file.path == "wit/README.md")
            .unwrap();
        // Not by assert_eq: nobody reads two such texts beside each other.
        assert!(
            committed.text == written,
            "wit/README.md is not what wit/*.wit says; renew it: \
             cargo run -- plugin wit --markdown > target/wit.md && mv target/wit.md wit/README.md"
        );
    }

    #[test]
    fn everything_public_of_the_contract_is_in_both_renderings_with_its_comment() {
        let contract = Contract::read().unwrap();
        let markdown = markdown::write(&contract);
        for interface in &contract.interfaces {
            let text = text::interface(interface);
            for item in interface.items() {
                for rendered in [&text, &markdown] {
                    assert!(
                        rendered.contains(&item.name),
                        "{}.{}",
                        interface.name,
                        item.name
                    );
                }
                let first = item.doc.split_whitespace().next().unwrap_or_default();
                assert!(text.contains(first), "{}.{}", interface.name, item.name);
            }
        }
        let message = contract.interfaces.iter().find(|one| one.name == "types");
        let message = message.unwrap().items().find(|one| one.name == "message");
        let text = text::item(message.unwrap());
        assert!(
            text.contains("tool-call-id: option<string>") && text.contains("Untrusted unless"),
            "{text}"
        );
    }

    #[test]
    fn a_function_is_written_as_in_the_contract() {
        let contract = Contract::read().unwrap();
        let find = |interface: &str, item: &str| {
            let interface = contract.interfaces.iter().find(|one| one.name == interface);
            let item = interface.unwrap().items().find(|one| one.name == item);
            item.unwrap().head.clone()
        };
        assert_eq!(
            find("reward", "verdict"),
            "verdict: func(votes: list<option<vote>>) -> result<option<decision>, fault>"
        );
        assert_eq!(
            find("shell", "machine.create"),
            "machine.create: static func(image: string) -> result<machine, fault>"
        );
        assert_eq!(
            find("shell", "machine.roll-back"),
            "machine.roll-back: func(snapshot: u32) -> result<_, fault>"
        );
        assert_eq!(find("random", "bits"), "bits: func() -> u32");
    }
}
