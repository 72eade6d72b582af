//! `commipc completions` and `commipc man`: the command line, told to shells and to `man`.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use roff::{Roff, roman};

use crate::args::{Cli, Completions, Man};
use crate::failure::{Failure, Outcome};

pub(crate) fn completions(args: &Completions, json: bool) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "commipc", &mut script);
    let script = String::from_utf8_lossy(&script);
    if json {
        crate::say(serde_json::json!({ "shell": args.shell.to_string(), "script": script }));
    } else {
        crate::say_raw(&script);
    }
    Ok(())
}

pub(crate) fn man(args: &Man, json: bool) -> Outcome {
    let mut cli = Cli::command().disable_help_subcommand(true);
    // Built, a command knows the options that all have in common, and its whole name.
    cli.build();
    match &args.out {
        Some(folder) => {
            std::fs::create_dir_all(folder)
                .map_err(|error| Failure::io(format_args!("making the folder {}", folder.display()), &error))?;
            write(&cli, folder, json)
        }
        None => show(&cli, json),
    }
}

fn show(command: &Command, json: bool) -> Outcome {
    let (name, page) = page(command).map_err(|error| Failure::io("making the manual page", &error))?;
    let page = String::from_utf8_lossy(&page);
    if json {
        crate::say(serde_json::json!({ "page": name, "roff": page }));
    } else {
        crate::say_raw(&page);
    }
    Ok(())
}

/// Writes the page of a command, then those of the commands below it.
fn write(command: &Command, folder: &Path, json: bool) -> Outcome {
    let (name, page) = page(command).map_err(|error| Failure::io("making a manual page", &error))?;
    let path = folder.join(name);
    std::fs::write(&path, page).map_err(|error| Failure::io(format_args!("writing {}", path.display()), &error))?;
    if json {
        crate::say(serde_json::json!({ "written": path }));
    }
    command.get_subcommands().filter(|below| !below.is_hide_set()).try_for_each(|below| write(below, folder, json))
}

/// The name of a page's file, and the page.
fn page(command: &Command) -> io::Result<(String, Vec<u8>)> {
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone()).source(concat!("commipc ", env!("CARGO_PKG_VERSION")));
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        section("DESCRIPTION", &about.to_string()).to_writer(&mut page)?;
    }
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    // Help begins with the examples; a manual page ends with them.
    if let Some(examples) = command.get_before_help() {
        section("EXAMPLES", examples.to_string().trim_start_matches("Examples:\n")).to_writer(&mut page)?;
    }
    Ok((man.get_filename(), page))
}

/// Paragraphs of text, and lines that stay as they are where they are indented.
fn section(title: &str, text: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    let mut verbatim = false;
    for line in text.lines() {
        if verbatim != line.starts_with(' ') {
            verbatim = !verbatim;
            roff.control(if verbatim { "nf" } else { "fi" }, []);
        }
        if line.is_empty() {
            roff.control("PP", [])
        } else {
            roff.text([roman(line)])
        };
    }
    if verbatim {
        roff.control("fi", []);
    }
    roff
}
