//! The capability `shell`, as a guest calls it: counts, limits, and hands over to [`crate::outside::Machines`].

use std::time::Duration;

use wasmtime::component::Resource;

use crate::{
    bindings::{shell as wit, types::Fault},
    capabilities::{Answer, State},
    outside::{ChangeKind, Ending, Machine, Refusal},
};

/// Longest time of one command.
const LONGEST: Duration = Duration::from_secs(60);

/// A machine that an instance holds.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Held(Box<dyn Machine>);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held(machine)")
    }
}

impl State {
    fn on_machine<T>(
        &mut self,
        machine: &Resource<Held>,
        passed: usize,
        call: impl FnOnce(&mut dyn Machine) -> Result<T, Refusal>,
    ) -> Answer<T> {
        self.outside(passed, |table| Ok(call(&mut *table.get_mut(machine)?.0)))
    }
}

impl wit::Host for State {}

impl wit::HostMachine for State {
    fn create(&mut self, image: String) -> Answer<Resource<Held>> {
        let Some(machines) = self.offers().shell.clone() else {
            let why = "this host offers no shell".to_owned();
            return Ok(Err(Fault::Unsupported(why)));
        };
        self.outside(image.len(), |table| match machines.create(&image) {
            Ok(machine) => Ok(Ok(table.push(Held(machine))?)),
            Err(refusal) => Ok(Err(refusal)),
        })
    }

    fn run(
        &mut self,
        machine: Resource<Held>,
        command: String,
        folder: String,
        timeout_ms: u32,
    ) -> Answer<wit::Output> {
        let timeout = Duration::from_millis(timeout_ms.into());
        let output = self.on_machine(&machine, command.len() + folder.len(), |machine| {
            if timeout.is_zero() || timeout > LONGEST {
                let why = format!("a time-out of {timeout:?}; above 0 to {LONGEST:?} is allowed");
                return Err(Refusal::Invalid(why));
            }
            machine.run(&command, &folder, timeout)
        })?;
        Ok(output.map(|output| wit::Output {
            ending: match output.ending {
                Ending::Exited(code) => wit::Ending::Exited(code),
                Ending::Killed(signal) => wit::Ending::Killed(signal),
                Ending::TimedOut => wit::Ending::TimedOut,
            },
            stdout: output.stdout,
            stderr: output.stderr,
            cut: output.cut,
        }))
    }

    fn write_file(
        &mut self,
        machine: Resource<Held>,
        path: String,
        content: Vec<u8>,
        executable: bool,
    ) -> Answer<()> {
        self.on_machine(&machine, path.len() + content.len(), |machine| {
            machine.write_file(&path, &content, executable)
        })
    }

    fn read_file(&mut self, machine: Resource<Held>, path: String) -> Answer<Option<Vec<u8>>> {
        self.on_machine(&machine, path.len(), |machine| machine.read_file(&path))
    }

    fn snapshot(&mut self, machine: Resource<Held>) -> Answer<u32> {
        self.on_machine(&machine, 0, |machine| machine.snapshot())
    }

    fn roll_back(&mut self, machine: Resource<Held>, snapshot: u32) -> Answer<()> {
        self.on_machine(&machine, 0, |machine| machine.roll_back(snapshot))
    }

    fn changes(&mut self, machine: Resource<Held>, since: u32) -> Answer<Vec<wit::Change>> {
        let changes = self.on_machine(&machine, 0, |machine| machine.changes(since))?;
        let change = |(path, kind)| wit::Change {
            path,
            kind: match kind {
                ChangeKind::Added => wit::ChangeKind::Added,
                ChangeKind::Modified => wit::ChangeKind::Modified,
                ChangeKind::Removed => wit::ChangeKind::Removed,
            },
        };
        Ok(changes.map(|changes| changes.into_iter().map(change).collect()))
    }

    fn drop(&mut self, machine: Resource<Held>) -> wasmtime::Result<()> {
        self.let_go(machine)
    }
}
