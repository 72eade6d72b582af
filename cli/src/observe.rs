//! `commipc channels`, `commipc members` and `commipc clear`: what a hub holds, and its end.

use commipc_tokio::{Channel, ChannelInfo, Client, MemberInfo, OpenError, Refusal, SYSTEM_CHANNEL};
use serde::Serialize;

use crate::args::{Clear, Common, Members};
use crate::connect;
use crate::errors::{self, channel_name};
use crate::failure::Outcome;
use crate::json;

pub(crate) async fn channels(common: &Common) -> Outcome {
    let client = connect::client(common).await?;
    let _own = own_channel(&client, common).await?;
    let channels = client.channels().await;
    let own = channel_name(SYSTEM_CHANNEL)?;
    let channels = channels.map_err(|error| {
        let (hub, code, text) = (connect::url(common), error.code(), error.to_string());
        if code.0 == Refusal::PasswordRequired.code() {
            errors::operation(&hub, &own, None, code, &text)
        } else {
            errors::connection(&hub, code.0, &text)
        }
    })?;
    let row = |channel: &ChannelInfo| {
        let owner = channel.owner.clone().unwrap_or_else(|| "-".to_owned());
        let [members, providers] = [channel.members, channel.providers].map(|count| count.to_string());
        [channel.name.clone(), owner, yes(channel.protected), members, providers]
    };
    let head = ["CHANNEL", "OWNER", "PASSWORD", "MEMBERS", "PROVIDERS"];
    show(&channels, head, row, |channel| &channel.path, "the hub has no channels", common.json);
    client.close().await;
    Ok(())
}

pub(crate) async fn members(args: &Members, common: &Common) -> Outcome {
    let hub = connect::url(common);
    let channel = channel_name(&args.channel)?;
    let client = connect::client(common).await?;
    let _own = own_channel(&client, common).await?;
    let members = client.members(&channel).await;
    let members = members.map_err(|error| errors::operation(&hub, &channel, None, error.code(), &error.to_string()))?;
    let row = |member: &MemberInfo| [member.client.clone(), yes(member.owner), member.provides.join(", ")];
    let head = ["CLIENT", "OWNER", "PROVIDES"];
    show(&members, head, row, |member| &member.path, "the channel has no members", common.json);
    client.close().await;
    Ok(())
}

pub(crate) async fn clear(args: &Clear, common: &Common) -> Outcome {
    let hub = connect::url(common);
    let channel = channel_name(&args.channel)?;
    let client = connect::client(common).await?;
    let _own = own_channel(&client, common).await?;
    client.clear(&channel).await.map_err(|error| {
        let failure = errors::operation(&hub, &channel, None, error.code(), &error.to_string());
        if error.code().0 == Refusal::NotAllowed.code() {
            return failure
                .hint("prove a credential that has can=admin at the hub, with --credential and --secret-file");
        }
        failure
    })?;
    if common.json {
        crate::say(serde_json::json!({ "cleared": args.channel }));
    } else {
        crate::say(format_args!("cleared {}", args.channel));
    }
    client.close().await;
    Ok(())
}

fn yes(so: bool) -> String {
    if so { "yes" } else { "-" }.to_owned()
}

/// The hub's own channel, opened if the options name a password.
async fn own_channel(client: &Client, common: &Common) -> Outcome<Option<Channel>> {
    if common.password_file.is_none() {
        return Ok(None);
    }
    let name = channel_name(SYSTEM_CHANNEL)?;
    let opened = connect::opening(client, &name, common)?.await;
    let failed =
        |error: OpenError| errors::operation(&connect::url(common), &name, None, error.code(), &error.to_string());
    opened.map(Some).map_err(failed)
}

/// A table for people or a line for each entry; that there are none is said beside stdout. On which way something is
/// reached has a column where anything is at another hub.
fn show<T: Serialize, const N: usize>(
    entries: &[T],
    head: [&str; N],
    row: impl Fn(&T) -> [String; N],
    path: impl Fn(&T) -> &[String],
    none: &str,
    json: bool,
) {
    if json {
        entries.iter().for_each(|entry| crate::say(json::line(entry)));
    } else if !entries.is_empty() {
        let mut rows: Vec<_> = std::iter::once(head.map(str::to_owned).to_vec()).collect();
        rows.extend(entries.iter().map(|entry| row(entry).to_vec()));
        if entries.iter().any(|entry| !path(entry).is_empty()) {
            let way = |entry| match path(entry) {
                [] => "-".to_owned(),
                path => path.join(" > "),
            };
            let ways = std::iter::once("PATH".to_owned()).chain(entries.iter().map(way));
            rows.iter_mut().zip(ways).for_each(|(row, way)| row.push(way));
        }
        crate::say_raw(&table(&rows));
    }
    if entries.is_empty() {
        crate::note(none, json);
    }
}

/// Columns as wide as their widest entry, two spaces apart.
fn table(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out += cells.join("  ").trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["CLIENT", "N"], ["grüße", "1"], ["somebody", "23"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "CLIENT    N\ngrüße     1\nsomebody  23\n");
    }
}
