//! Shell completions: `pillarbox completions SHELL` prints a script, which asks [`COMPLETE`] at every TAB.
//!
//! The scripts know how their shell wants to be answered, and nothing else. What can be typed is known here:
//! subcommands and flags from the parsers' own tables, accounts from the configuration, letters from the queue. So a
//! script never grows old, and there is one place to look. `clap_complete` would be a dependency for long scripts that
//! know neither accounts nor letters, nor the options that clap does not read (`sendmail`'s and `mail`'s).
//!
//! Whoever presses TAB is answered at once and never in prose: what cannot be found out (no configuration, somebody
//! else's queue) is not offered. Nothing is run, and nobody is asked but the machine's service about its queue.

use super::configuration;
use super::exit::sysexits;
use super::host::Host;
use super::mail::{self, words::MAIL, words::OWN};
use super::options::{self, Row, Takes, Treatment};
use super::sendmail::Face;
use crate::config::Settings;
use crate::outcome::printable;
use crate::queue::Letter;
use clap::{Arg, Args, Command, CommandFactory, ValueHint};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The word behind which a script asks: the program's name and its words come next, the last being the one to complete.
pub const COMPLETE: &str = "__complete";

/// A line that stands for the names of files.
const FILES: &str = ":files";

/// More letters than this are no help.
const MOST: usize = 500;

/// What a script can complete: ourselves, and those that are links to us or to `sendmail`.
const COMMANDS: [&str; 6] = ["pillarbox", "sendmail", "mailq", "newaliases", "mail", "mailx"];

/// Its words.
#[derive(Debug, Args)]
pub struct Words {
    /// For which shell.
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    shell: String,
    /// The commands to complete: pillarbox, and those that are links to it or to sendmail.
    #[arg(value_parser = COMMANDS, default_value = COMMANDS[0])]
    commands: Vec<String>,
}

/// Prints a script.
pub fn main(face: Face<'_>, words: &Words) -> u8 {
    let script = match words.shell.as_str() {
        "bash" => BASH,
        "zsh" => ZSH,
        _ => FISH,
    };
    let each = |line: &str| words.commands.iter().map(|name| line.replace("@NAME@", name)).collect::<Vec<_>>().concat();
    let lines =
        script.split_inclusive('\n').map(|line| if line.contains("@NAME@") { each(line) } else { line.to_owned() });
    let text = lines
        .collect::<Vec<_>>()
        .concat()
        .replace("@NAMES@", &words.commands.join(" "))
        .replace("@COMPLETE@", COMPLETE);
    face.print(&text)
}

/// What can stand in a place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// One of these, each with what it is.
    Words(Vec<(String, String)>),
    Account,
    /// A letter that waits; with `true`, also one that has failed.
    Letter(bool),
    File,
    /// Whatever only the writer knows.
    Anything,
}

/// Answers a script: a line for each word that can stand there, perhaps with a tab and what it is.
pub fn complete(face: Face<'_>, words: impl IntoIterator<Item = OsString>) -> u8 {
    let words: Vec<String> = words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let Some((program, words)) = words.split_first() else { return sysexits::USAGE };
    let program = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    let [before @ .., last] = words else { return 0 };
    let line = match program.as_ref() {
        "pillarbox" => ours(before, last),
        name if mail::is_mailx(name) => by_table(mail::words::OPTIONS, MAIL, before, last),
        "sendmail" | "mailq" | "newaliases" | "msmtp" => by_table(options::OPTIONS, &program, before, last),
        _ => return 0,
    };
    let mut text = String::new();
    for wanted in line.wanted {
        for (word, what) in offered(wanted, line.config.as_deref()) {
            if word.starts_with(last.as_str()) || word == FILES {
                let what = what.lines().next().unwrap_or_default();
                text.push_str(&printable(&word));
                text.push_str(if what.is_empty() { "" } else { "\t" });
                text.push_str(&printable(what));
                text.push('\n');
            }
        }
    }
    face.print(&text)
}

/// What can stand at the end of a line, and the configuration that the line names.
#[derive(Default)]
struct Line {
    wanted: Vec<Wanted>,
    config: Option<PathBuf>,
}

/// A line of `pillarbox`, by clap's own tables.
fn ours(before: &[String], last: &str) -> Line {
    let mut command = super::pillarbox::Words::command();
    command.build();
    let mut line = Line::default();
    let (mut command, mut awaits, mut positionals) = (&command, None::<&Arg>, 0);
    for (i, word) in before.iter().enumerate() {
        if let Some(argument) = awaits.take() {
            if argument.get_short() == Some('C') {
                line.config = Some(PathBuf::from(word));
            }
        } else if word.starts_with('-') {
            awaits =
                option(command, word).filter(|argument| argument.get_action().takes_values() && !word.contains('='));
        } else if let Some(below) = command.find_subcommand(word) {
            if below.get_name() == "mail" {
                return by_table(mail::words::OPTIONS, OWN, &before[i + 1..], last);
            }
            (command, positionals) = (below, 0);
        } else {
            positionals += 1;
        }
    }
    line.wanted = match awaits {
        Some(argument) => vec![value(command, argument)],
        None if last.starts_with('-') => vec![Wanted::Words(flags(command))],
        None => {
            let below = command.get_subcommands().filter(|below| !below.is_hide_set());
            let below = below.map(|below| (below.get_name().to_owned(), help(below.get_about()))).collect::<Vec<_>>();
            // The last positional may be given again.
            let all: Vec<&Arg> = command.get_positionals().collect();
            let next = all.get(positionals).or_else(|| all.last().filter(|last| is_many(last)));
            [Wanted::Words(below)].into_iter().chain(next.map(|next| value(command, next))).collect()
        }
    };
    line
}

fn is_many(argument: &Arg) -> bool {
    argument.get_num_args().is_some_and(|range| range.max_values() > 1)
        || matches!(argument.get_action(), clap::ArgAction::Append)
}

fn help(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

/// The option of a word: `--long`, `--long=value`, or the last letter of a cluster.
fn option<'c>(command: &'c Command, word: &str) -> Option<&'c Arg> {
    let name = word.split('=').next().unwrap_or_default();
    command.get_arguments().find(|argument| match name.strip_prefix("--") {
        Some(long) => argument.get_long() == Some(long),
        None => argument.get_short().is_some_and(|short| name.ends_with(short)),
    })
}

fn flags(command: &Command) -> Vec<(String, String)> {
    let known = command.get_arguments().filter(|argument| !argument.is_positional() && !argument.is_hide_set());
    known
        .flat_map(|argument| {
            let long = argument.get_long().map(|long| format!("--{long}"));
            let short = argument.get_short().map(|short| format!("-{short}"));
            [long, short].into_iter().flatten().map(|word| (word, help(argument.get_help()))).collect::<Vec<_>>()
        })
        .collect()
}

/// What an argument takes.
fn value(command: &Command, argument: &Arg) -> Wanted {
    let possible = argument.get_possible_values();
    if !possible.is_empty() {
        let words = possible.iter().map(|one| (one.get_name().to_owned(), help(one.get_help())));
        return Wanted::Words(words.collect());
    }
    match argument.get_id().as_str() {
        "id" | "ids" => Wanted::Letter(matches!(command.get_name(), "show" | "retry" | "remove")),
        "account" | "accounts" => Wanted::Account,
        _ if !matches!(argument.get_value_hint(), ValueHint::Unknown | ValueHint::Other) => Wanted::File,
        _ => Wanted::Anything,
    }
}

/// A line of a program whose options are a table of ours.
fn by_table(table: &'static [Row], program: &str, before: &[String], last: &str) -> Line {
    let mut line = Line::default();
    let known = || table.iter().filter(|row| row.is_for(program) && row.treatment != Treatment::Refused);
    let mut awaits = None::<&Row>;
    for word in before {
        if let Some(row) = awaits.take() {
            if row.spelling == "-C" && row.value == "file" {
                line.config = Some(PathBuf::from(word));
            }
        } else if word.starts_with("--") {
            awaits = known().find(|row| row.spelling == word && row.takes == Takes::Value);
        } else if word.starts_with('-') {
            // The last letter of a cluster that takes its value from the next word.
            let letter = word.chars().last().map(|letter| format!("-{letter}")).unwrap_or_default();
            awaits = known().find(|row| row.spelling == letter && row.takes == Takes::Value);
        }
    }
    line.wanted = match awaits {
        Some(row) => row.value.split('|').map(value_of_row).collect(),
        None if last.starts_with('-') => {
            vec![Wanted::Words(known().map(|row| (row.spelling.to_owned(), row.help.to_owned())).collect())]
        }
        None => vec![Wanted::Anything],
    };
    line
}

fn value_of_row(name: &str) -> Wanted {
    match name {
        "account" => Wanted::Account,
        "file" => Wanted::File,
        _ => Wanted::Anything,
    }
}

/// The words for a place.
fn offered(wanted: Wanted, config: Option<&Path>) -> Vec<(String, String)> {
    match wanted {
        Wanted::Words(words) => words,
        Wanted::File => vec![(FILES.to_owned(), String::new())],
        Wanted::Anything => Vec::new(),
        Wanted::Account => accounts(config).unwrap_or_default(),
        Wanted::Letter(failed) => letters(config, failed).unwrap_or_default(),
    }
}

fn accounts(config: Option<&Path>) -> Option<Vec<(String, String)>> {
    let settings: Settings = configuration::find(&Host::look(), config).ok()??.settings;
    let named = |account: crate::config::Account| (account.name, account.from.unwrap_or_default());
    Some(settings.accounts.into_iter().map(named).collect())
}

fn letters(config: Option<&Path>, with_failed: bool) -> Option<Vec<(String, String)>> {
    let letters = super::queue::letters(&Host::look(), config, with_failed)?;
    Some(letters.iter().take(MOST).map(|letter| (letter.entry.id.to_string(), to(letter))).collect())
}

/// Whom a letter is for.
fn to(letter: &Letter) -> String {
    let recipients = letter.entry.envelope.recipients();
    let first = recipients.first().map(|first| first.mailbox.to_string()).unwrap_or_default();
    if recipients.len() > 1 { format!("to {first} and {} more", recipients.len() - 1) } else { format!("to {first}") }
}

/// bash splits words at `:`, `=` and `@` of its own accord, so that the line is split here, and what it has split off
/// is taken away from the answers.
const BASH: &str = r#"# Completion for bash: source it, or install it as
# /usr/share/bash-completion/completions/pillarbox
_pillarbox() {
    local line=${COMP_LINE:0:COMP_POINT} words word last start rest
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    last=${words[-1]} COMPREPLY=()
    start=${last%"${last##*[@:=]}"}
    while IFS=$'\t' read -r word rest; do
        if [[ $word == :files ]]; then
            compopt -o filenames
            while read -r word; do COMPREPLY+=("$word"); done < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
        elif [[ $word ]]; then
            COMPREPLY+=("${word#"$start"}")
        fi
    done < <(pillarbox @COMPLETE@ "${words[@]}" 2>/dev/null)
}
complete -F _pillarbox @NAMES@
"#;

const ZSH: &str = r#"#compdef @NAMES@
# Completion for zsh: source it behind compinit, or install it as _pillarbox in a directory of $fpath
_pillarbox() {
    local -a found
    local word what files
    while IFS=$'\t' read -r word what; do
        if [[ $word == :files ]]; then
            files=1
        elif [[ -n $word ]]; then
            found+=("${word//:/\\:}${what:+:$what}")
        fi
    done < <(pillarbox @COMPLETE@ "${(@Q)words[1,CURRENT]}" 2>/dev/null)
    (( $#found )) && _describe -V pillarbox found
    [[ -n $files ]] && _files
}
if [[ $funcstack[1] == _pillarbox ]]; then
    _pillarbox "$@"
else
    compdef _pillarbox @NAMES@
fi
"#;

const FISH: &str = r#"# Completion for fish: source it, or install it as ~/.config/fish/completions/pillarbox.fish
function __pillarbox_complete
    set -l last (commandline -ct)
    for line in (pillarbox @COMPLETE@ (commandline -opc) "$last" 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path "$last"
        else
            echo $line
        end
    end
end
complete -c @NAME@ -f -a '(__pillarbox_complete)'
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (last, before) = words.split_last().unwrap();
        let mut found = Vec::new();
        for wanted in ours(before, last).wanted {
            match wanted {
                Wanted::Words(words) => {
                    found.extend(words.into_iter().map(|(word, _)| word).filter(|word| word.starts_with(last)));
                }
                other => found.push(format!("{other:?}")),
            }
        }
        found
    }

    #[test]
    fn every_place_has_its_own_words() {
        for (line, want) in [
            ("que", &["queue"][..]),
            ("queue re", &["release", "retry", "remove"]),
            ("queue list --j", &["--json"]),
            ("queue show ", &["Letter(true)"]),
            ("queue hold 6f ", &["Letter(false)"]),
            ("queue -C ", &["File"]),
            ("queue -C x sh", &["show"]),
            ("sandbox --maildir ", &["File"]),
            ("sandbox --user ", &["Anything"]),
            ("mail -A ", &["Account"]),
            ("mail -s subject -a ", &["File"]),
            ("mail -s subject -ES", &[]),
            ("mail --h", &["--html", "--help"]),
            ("import --from d", &["dma"]),
            ("completions f", &["fish"]),
            ("completions fish mail", &["mailq", "mail", "mailx"]),
            ("check ", &["Account"]),
            ("no-such-command --", &["--help", "--version"]),
        ] {
            assert_eq!(words(line), want, "{line}");
        }
    }

    #[test]
    fn options_that_clap_does_not_read_are_known_too() {
        let wanted = |line: &[&str], last: &str| {
            let before: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
            by_table(options::OPTIONS, "sendmail", &before, last).wanted
        };
        assert_eq!(wanted(&["-ta"], ""), [Wanted::Account]);
        assert_eq!(wanted(&["-C"], ""), [Wanted::File]);
        let Wanted::Words(words) = &wanted(&[], "-")[0] else { unreachable!() };
        assert!(words.iter().any(|(word, what)| word == "-t" && what.starts_with("read recipients")));
        assert!(!words.iter().any(|(word, _)| word == "-bd"));
    }
}
