//! Compiled components that are kept: the same answers, the same checks, and no code that this host did not write.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bundled::{BINARY_REWARD, Bundled, CONVERSATION, GRPO_REWARD, REACTION_JUDGE};
use plugin::{
    Capability, GuestEnvironment, GuestReward, Limits, Plugin, PluginHost, World,
    compiled::{Cache, ForWorkers},
    outside::Outside,
};
use rl::{Action, Environment as _, JudgedTurn, Message, RewardRule as _, Seed, seam::conformance};
use tempfile::TempDir;

use crate::support::{load, load_error};

const ROOM: u64 = 64 << 20;

fn limits() -> Limits {
    Limits {
        instances: 8,
        ..Limits::default()
    }
}

fn cache(dir: &Path) -> Cache {
    room_for(dir, ROOM)
}

fn room_for(dir: &Path, bytes: u64) -> Cache {
    Cache::new(dir.join("compiled"), dir.join("keys/compiled"), bytes)
}

/// A host that was just started.
fn host(cache: &Cache) -> PluginHost {
    PluginHost::keeping(limits(), Outside::default(), Some(cache.clone())).unwrap()
}

/// Loads it in a host that was just started, and has it answer.
fn start(cache: &Cache, guest: Bundled) -> String {
    answers(&load(&host(cache), guest, "").unwrap())
}

fn answers(plugin: &Plugin) -> String {
    if plugin.manifest().world == World::EnvironmentPlugin {
        let environment = GuestEnvironment::new(plugin, Seed::new(3)).unwrap();
        let task = &environment.tasks("train").unwrap()[1];
        let mut episode = environment.start(task, Seed::new(7)).unwrap();
        let action = Action {
            message: Message::assistant("Certainly. Here is a long answer."),
            truncated: false,
        };
        let said = (episode.observe(), episode.act(&action), episode.snapshot());
        return format!("{:?} {said:?}", environment.card());
    }
    let rule = GuestReward::new(plugin).unwrap();
    let turns = [JudgedTurn {
        process: Some(1.0),
        tokens: 40,
        ..JudgedTurn::default()
    }; 3];
    let paid = rule.turn_rewards(&turns, Some(0.5)).unwrap();
    format!("{paid:?} {:?}", rule.advantages(&[vec![Some(1.0), None]]))
}

/// What is kept, in no order.
fn kept(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("compiled")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The file of the one component that is kept.
fn only(dir: &Path) -> PathBuf {
    let mut kept = kept(dir);
    assert_eq!(kept.len(), 1, "{kept:?}");
    kept.pop().unwrap()
}

/// Which file it is: one that is written again is another, though it may get the number of the one that was removed.
fn which(path: &Path) -> (u64, SystemTime) {
    let data = fs::symlink_metadata(path).unwrap();
    (data.ino(), data.created().unwrap())
}

#[test]
fn what_was_kept_answers_as_what_was_compiled() {
    for guest in [BINARY_REWARD, CONVERSATION] {
        let dir = tempfile::tempdir().unwrap();
        let fresh = start(&cache(dir.path()), guest);
        let file = only(dir.path());
        let (written, mode) = (which(&file), fs::metadata(&file).unwrap().mode());
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(start(&cache(dir.path()), guest), fresh, "{}", guest.name);
        assert_eq!(which(&only(dir.path())), written, "{}", guest.name);
        let plugin = load(&host(&cache(dir.path())), guest, "").unwrap();
        match plugin.manifest().world {
            World::EnvironmentPlugin => {
                let environment = GuestEnvironment::new(&plugin, Seed::new(3)).unwrap();
                conformance::environment(&environment, "train").unwrap();
            }
            _ => conformance::reward_rule(&GuestReward::new(&plugin).unwrap()).unwrap(),
        }
        assert_eq!(which(&file), written);
    }
}

#[test]
fn a_limit_stops_code_that_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let plugin = crate::support::faulty(&host(&cache(dir.path())), "reward-plugin", "spin", 0);
        let rule = GuestReward::new(&plugin).unwrap();
        let said = crate::support::words(rule.verdict(&[]));
        assert!(said.contains("fuel"), "{said}");
    }
    only(dir.path());
}

/// A cache that has the code of one component, and what its answers are.
struct Kept {
    dir: TempDir,
    file: PathBuf,
    fresh: String,
}

impl Kept {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fresh = start(&cache(dir.path()), BINARY_REWARD);
        let file = only(dir.path());
        Self { dir, file, fresh }
    }

    fn edit(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(&self.file).unwrap();
        change(&mut bytes);
        fs::write(&self.file, bytes).unwrap();
    }

    /// The code of another component, in the same folder.
    fn another(&self) -> PathBuf {
        start(&cache(self.dir.path()), GRPO_REWARD);
        let mut others = kept(self.dir.path());
        others.retain(|path| *path != self.file);
        others.pop().unwrap()
    }

    fn swap(&self, other: &Path) {
        fs::remove_file(&self.file).unwrap();
        fs::copy(other, &self.file).unwrap();
        fs::set_permissions(&self.file, Permissions::from_mode(0o600)).unwrap();
    }

    /// Whatever lies there now is not loaded, and is replaced.
    #[track_caller]
    fn is_refused(&self, what: &str) {
        let before = which(&self.file);
        let cache = cache(self.dir.path());
        assert_eq!(start(&cache, BINARY_REWARD), self.fresh, "{what}");
        let is_file = fs::symlink_metadata(&self.file).unwrap().is_file();
        assert!(is_file, "{what}");
        let after = which(&self.file);
        assert_ne!(after, before, "{what} was not written again");
        assert_eq!(cache.trouble(), None, "{what}");
        assert_eq!(start(&cache, BINARY_REWARD), self.fresh, "{what}");
        assert_eq!(which(&self.file), after, "{what}: not kept again");
    }
}

#[test]
fn a_changed_bit_anywhere_is_found() {
    let kept = Kept::new();
    let length = fs::metadata(&kept.file).unwrap().len() as usize;
    // The magic number, the MAC, and the code from its first byte to its last.
    for at in [0, 8, 39, 40, 41, length / 3, length / 2, length - 1] {
        kept.edit(|bytes| bytes[at] ^= 4);
        kept.is_refused(&format!("byte {at}"));
    }
}

#[test]
fn what_is_cut_or_has_more_or_has_nothing_is_refused() {
    let kept = Kept::new();
    let length = fs::metadata(&kept.file).unwrap().len() as usize;
    for cut in [0, 1, 8, 39, 40, 41, length - 1] {
        kept.edit(|bytes| bytes.truncate(cut));
        kept.is_refused(&format!("cut to {cut}"));
    }
    kept.edit(|bytes| bytes.push(0));
    kept.is_refused("a byte more");
    kept.edit(|bytes| bytes.resize(ROOM as usize + 41, 0));
    kept.is_refused("more than may be kept");
}

#[test]
fn another_components_code_is_refused() {
    let kept = Kept::new();
    kept.swap(&kept.another());
    kept.is_refused("another component's code");
}

#[test]
fn code_of_another_engine_is_refused_and_no_other_engine_finds_it() {
    let kept = Kept::new();
    let roomier = Limits {
        memory_bytes: 128 << 20,
        ..limits()
    };
    let other = PluginHost::keeping(roomier, Outside::default(), Some(cache(kept.dir.path())));
    let plugin = load(&other.unwrap(), BINARY_REWARD, "").unwrap();
    assert_eq!(answers(&plugin), kept.fresh);
    let mut others = self::kept(kept.dir.path());
    others.retain(|path| *path != kept.file);
    assert_eq!(others.len(), 1);
    kept.swap(&others[0]);
    kept.is_refused("another engine's code");
}

#[test]
fn what_a_worker_compiled_is_not_the_hosts_and_what_the_host_compiled_is_no_workers() {
    let kept = Kept::new();
    let workers = || {
        let (component, world) = (BINARY_REWARD.component, World::RewardPlugin);
        ForWorkers::new(cache(kept.dir.path()), component, &limits(), world).unwrap()
    };
    let code = fs::read(&kept.file).unwrap()[40..].to_vec();
    // The very same code: that a worker made it is enough.
    workers().keep(&code);
    assert_eq!(workers().find().as_ref(), Some(&code));
    let mut others = self::kept(kept.dir.path());
    others.retain(|path| *path != kept.file);
    let of_workers = others.pop().unwrap();
    kept.swap(&of_workers);
    kept.is_refused("a worker's code");
    fs::copy(&kept.file, &of_workers).unwrap();
    assert_eq!(workers().find(), None);
    assert!(!of_workers.exists());
}

#[test]
fn a_worker_cannot_keep_more_code_than_its_component_becomes() {
    let dir = tempfile::tempdir().unwrap();
    let (component, world) = (BINARY_REWARD.component, World::RewardPlugin);
    let workers = ForWorkers::new(cache(dir.path()), component, &limits(), world).unwrap();
    let most = usize::try_from(workers.most_bytes()).unwrap();
    workers.keep(&vec![0; most + 1]);
    assert!(!dir.path().join("compiled").exists());
    workers.keep(&vec![0; most]);
    assert_eq!(workers.find().map(|code| code.len()), Some(most));
}

#[test]
fn code_under_another_key_is_refused() {
    let kept = Kept::new();
    fs::remove_file(kept.dir.path().join("keys/compiled")).unwrap();
    kept.is_refused("another key's code");
}

#[test]
fn what_is_no_plain_file_of_its_owners_alone_is_refused() {
    let kept = Kept::new();
    let good = kept.dir.path().join("good");
    fs::copy(&kept.file, &good).unwrap();
    let plant = |how: &dyn Fn()| {
        fs::remove_file(&kept.file).unwrap();
        how();
    };
    plant(&|| symlink(&good, &kept.file).unwrap());
    kept.is_refused("a link");
    assert!(good.exists());
    plant(&|| symlink("/nowhere", &kept.file).unwrap());
    kept.is_refused("a link to nothing");
    plant(&|| fs::create_dir(&kept.file).unwrap());
    kept.is_refused("a folder");
    plant(&|| {
        let made = std::process::Command::new("mkfifo")
            .arg(&kept.file)
            .status();
        assert!(made.unwrap().success());
    });
    kept.is_refused("a pipe");
    for mode in [0o604, 0o640, 0o602, 0o620, 0o660, 0o777] {
        fs::set_permissions(&kept.file, Permissions::from_mode(mode)).unwrap();
        kept.is_refused(&format!("mode {mode:o}"));
    }
}

#[test]
fn a_folder_that_others_can_write_or_that_is_a_link_is_not_used() {
    let kept = Kept::new();
    let folder = kept.dir.path().join("compiled");
    let written = which(&kept.file);
    for mode in [0o777, 0o1777, 0o720, 0o702] {
        fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
        let cache = cache(kept.dir.path());
        assert_eq!(start(&cache, BINARY_REWARD), kept.fresh);
        assert_eq!(start(&cache, GRPO_REWARD), start(&cache, GRPO_REWARD));
        let said = cache.trouble().unwrap();
        assert!(said.contains("can be written by others"), "{said}");
        assert_eq!(which(&only(kept.dir.path())), written);
    }
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    fs::rename(&folder, kept.dir.path().join("elsewhere")).unwrap();
    symlink("elsewhere", &folder).unwrap();
    let cache = cache(kept.dir.path());
    assert_eq!(start(&cache, BINARY_REWARD), kept.fresh);
    let said = cache.trouble().unwrap();
    assert!(said.contains("is a link"), "{said}");
}

#[test]
fn a_key_that_others_can_read_vouches_for_nothing() {
    let kept = Kept::new();
    let key = kept.dir.path().join("keys/compiled");
    let written = which(&kept.file);
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let cache = cache(kept.dir.path());
    assert_eq!(start(&cache, BINARY_REWARD), kept.fresh);
    let said = cache.trouble().unwrap();
    assert!(said.contains("not its owner's alone"), "{said}");
    assert_eq!(which(&only(kept.dir.path())), written);
}

#[test]
fn without_a_place_to_keep_code_plugins_load_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = start(&cache(dir.path()), BINARY_REWARD);
    File::create(dir.path().join("file")).unwrap();
    let (file, key) = (dir.path().join("file"), dir.path().join("keys/compiled"));
    let nowhere = Cache::new(file.join("compiled"), key, ROOM);
    let keyless = Cache::new(dir.path().join("compiled"), file.join("key"), ROOM);
    for cache in [nowhere, keyless] {
        for _ in 0..2 {
            assert_eq!(start(&cache, BINARY_REWARD), fresh);
        }
        let said = cache.trouble().unwrap();
        assert!(said.contains("make the folder"), "{said}");
    }
}

#[test]
fn what_a_component_may_not_is_refused_though_its_code_is_kept() {
    let kept = Kept::new();
    let host = host(&cache(kept.dir.path()));
    let section = toml::Table::new();
    let (manifest, component) = (BINARY_REWARD.manifest, BINARY_REWARD.component);
    let unlisted = manifest.replace("capabilities = [\"config\"]", "capabilities = []");
    let unlisted = unlisted.split("[[config]]").next().unwrap();
    assert_ne!(unlisted, manifest);
    let all = &Capability::ALL;
    let said = load_error(host.load(unlisted, component, all, &section));
    assert!(said.contains("does not list"), "{said}");
    let said = load_error(host.load(manifest, component, &[], &section));
    assert!(said.contains("not granted"), "{said}");
    let smaller = Limits {
        component_bytes: 1_000,
        ..limits()
    };
    let simpler = Limits {
        function_bytes: 10,
        ..limits()
    };
    for (limits, named) in [(smaller, "and 1000 are allowed"), (simpler, "a function")] {
        let host =
            PluginHost::keeping(limits, Outside::default(), Some(cache(kept.dir.path()))).unwrap();
        let said = load_error(load(&host, BINARY_REWARD, ""));
        assert!(said.contains(named), "{said}");
    }
    assert_eq!(only(kept.dir.path()), kept.file);
}

#[test]
fn what_was_not_used_for_longest_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let guests = [BINARY_REWARD, GRPO_REWARD, CONVERSATION];
    let files = guests.map(|guest| {
        let before = if dir.path().join("compiled").exists() {
            kept(dir.path())
        } else {
            Vec::new()
        };
        start(&cache(dir.path()), guest);
        let mut now = kept(dir.path());
        now.retain(|file| !before.contains(file));
        now.pop().unwrap()
    });
    let length = |file: &PathBuf| fs::metadata(file).unwrap().len();
    let total: u64 = files.iter().map(length).sum();
    let used = |file: &PathBuf, days: u64| {
        let at = SystemTime::now() - Duration::from_secs(days * 86_400);
        File::open(file).unwrap().set_modified(at).unwrap();
    };
    for (file, days) in files.iter().zip([30, 20, 10]) {
        used(file, days);
    }
    // A start uses the oldest: now the second is.
    start(&cache(dir.path()), BINARY_REWARD);
    let foreign = dir.path().join("compiled/notes.txt");
    fs::write(&foreign, vec![0; 1 << 20]).unwrap();
    let abandoned = dir.path().join("compiled/.new-0123");
    fs::write(&abandoned, b"half").unwrap();
    used(&abandoned, 1);
    let written = dir.path().join("compiled/.new-4567");
    fs::write(&written, b"half").unwrap();
    fs::remove_file(&files[2]).unwrap();
    // Room for all but a byte.
    start(&room_for(dir.path(), total - 1), CONVERSATION);
    assert!(files[0].exists() && files[2].exists());
    assert!(!files[1].exists());
    assert!(foreign.exists() && written.exists() && !abandoned.exists());
    // Room for none: nothing is kept, and nothing thrown away for it.
    start(&room_for(dir.path(), 1_000), GRPO_REWARD);
    assert!(files[0].exists() && files[2].exists() && !files[1].exists());
}

#[test]
fn hosts_that_share_a_folder_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let guests = [BINARY_REWARD, GRPO_REWARD, CONVERSATION];
    let fresh = guests.map(|guest| start(&cache(dir.path()), guest));
    let all: Vec<u64> = kept(dir.path())
        .iter()
        .map(|file| fs::metadata(file).unwrap().len())
        .collect();
    // One does not fit, so that everybody evicts and reads what others evict.
    let room = all.iter().sum::<u64>() - 1;
    fs::remove_dir_all(dir.path().join("compiled")).unwrap();
    fs::remove_dir_all(dir.path().join("keys")).unwrap();
    std::thread::scope(|scope| {
        for host in 0..4 {
            let (dir, fresh) = (dir.path(), &fresh);
            scope.spawn(move || {
                for round in 0..6 {
                    let index = (host + round) % guests.len();
                    let cache = room_for(dir, room);
                    assert_eq!(start(&cache, guests[index]), fresh[index]);
                    assert_eq!(cache.trouble(), None);
                }
            });
        }
    });
    for file in kept(dir.path()) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.ends_with("-host"), "{name}");
    }
}

#[test]
fn guests_of_every_engine_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let host = host(&cache(dir.path()));
        for guest in [BINARY_REWARD, REACTION_JUDGE, CONVERSATION] {
            load(&host, guest, "").unwrap();
        }
        assert_eq!(kept(dir.path()).len(), 3);
    }
}
