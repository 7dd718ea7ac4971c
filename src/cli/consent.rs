//! `pillarbox login --oauth`: leads the user to the provider and waits for what it gives.
//!
//! In a browser on this machine, or by a code in one that is elsewhere; what is said and checked in both is `secret`'s
//! to know. The browser is not started from here: on a machine without a desktop that would be a text browser in the
//! middle of our words, and where there is one a terminal opens a link that is clicked.

use super::sendmail::Face;
use crate::http::callback::{Callback, Page};
use crate::secret::consent::{Browser, Client, Device, Visit};
use crate::secret::{NoSecret, Secret};
use std::time::{Duration, Instant};

/// How long a browser may take to come back.
const PATIENCE: Duration = Duration::from_mins(5);

/// Which way consent is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// The code where the provider has that, else the browser.
    Auto,
    /// In a browser on this machine.
    Browser,
    /// By a code, which is entered in a browser anywhere.
    Device,
}

/// Gets a refresh token. The error reads on after "cannot log in: ".
pub fn ask(face: Face<'_>, client: Client<'_>, way: Way) -> Result<Secret, String> {
    let by_code = match way {
        Way::Device => true,
        Way::Browser => false,
        Way::Auto => client.oauth.consent.device_url.is_some(),
    };
    if by_code { device(face, client) } else { browser(face, client) }
}

fn device(face: Face<'_>, client: Client<'_>) -> Result<Secret, String> {
    let words = |why: NoSecret| why.to_string();
    let mut device = Device::ask(client).map_err(words)?;
    let until = Instant::now() + device.life;
    let whole = device.whole_place.as_ref().map(|place| format!("or open    {place}\n\n")).unwrap_or_default();
    face.print(&format!(
        "Open       {}\nin a browser, on this machine or another, and enter the code\n\n           {}\n\n{whole}\
         Waiting for your consent, up to {} min ...\n",
        device.place,
        device.user_code,
        device.life.as_secs().div_ceil(60)
    ));
    while Instant::now() < until {
        std::thread::sleep(device.interval);
        if let Some(token) = device.poll(client).map_err(words)? {
            return Ok(token);
        }
    }
    Err("nobody has entered the code in time".to_owned())
}

fn browser(face: Face<'_>, client: Client<'_>) -> Result<Secret, String> {
    let callback = Callback::open().map_err(|error| format!("no port of 127.0.0.1 can be opened: {error}"))?;
    let browser = Browser::new(client, callback.port).map_err(|why| why.to_string())?;
    face.print(&format!(
        "Open this address in a browser on this machine:\n\n{}\n\nWaiting for your consent, up to {} min ...\n",
        browser.url,
        PATIENCE.as_secs() / 60
    ));
    let mut judge = |target: &str| match browser.judge(target) {
        Visit::Elsewhere => (page(404, "There is nothing here."), None),
        Visit::Forged => {
            (page(400, "Pillarbox has not asked for this. Begin again with the address that it shows."), None)
        }
        Visit::Code(code) => (page(200, "Pillarbox has the answer. You can close this window."), Some(Ok(code))),
        Visit::Refused(why) => (page(200, "Pillarbox has been told no. You can close this window."), Some(Err(why))),
    };
    let answer = callback
        .wait(Instant::now() + PATIENCE, &mut judge)
        .map_err(|error| format!("nobody can come back: {error}"))?;
    match answer {
        Some(Ok(code)) => browser.redeem(client, &code).map_err(|why| why.to_string()),
        Some(Err(why)) => Err(format!("the provider refused ({why})")),
        None => Err("no browser has come back in time".to_owned()),
    }
}

fn page(status: u16, text: &'static str) -> Page {
    Page { status, text }
}
