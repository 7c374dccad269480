//! Scenes as they are drawn: a place for everything.

use super::picture::{self, Actor, Level, Owned, Scene};
use crate::facts::Facts;
use crate::plan::Plan;

/// A scene with places for everything, in a box that is [`WIDTH`] units wide.
pub(super) struct Drawing {
    pub(super) id: &'static str,
    pub(super) title: String,
    pub(super) words: String,
    pub(super) height: usize,
    pub(super) arrows: Vec<usize>,
    pub(super) actors: Vec<(usize, Label, Actor)>,
    pub(super) owners_at: usize,
    pub(super) owned: Vec<(usize, Label, Owned)>,
}

/// An account in a coloured box at the right.
pub(super) struct Label {
    pub(super) class: &'static str,
    pub(super) x: usize,
    pub(super) width: usize,
    pub(super) text: String,
}

const WIDTH: usize = 440;
/// Of a part of the work, and the way to the next.
const ACTOR_HEIGHT: usize = 78;
const GAP: usize = 22;
const LINE: usize = 32;
/// Characters that fit beside each other.
const LONGEST_ACCOUNT: usize = 30;
const LONGEST_RIGHTS: usize = 58;

/// What can be drawn: the machine now, and after the plan where there is one that hands something over.
pub(super) fn drawings(facts: &Facts, plan: Option<&Plan>) -> Vec<Drawing> {
    let before = picture::now(facts);
    let after = plan.and_then(|plan| picture::after(facts, plan));
    let title = if after.is_some() { "Before" } else { "Now" };
    let mut drawings = vec![Drawing::of("before", title, before)];
    drawings.extend(after.map(|scene| Drawing::of("after", "After", scene)));
    drawings.retain(|drawing| !drawing.actors.is_empty() || !drawing.owned.is_empty());
    drawings
}

impl Drawing {
    fn of(id: &'static str, title: &str, scene: Scene) -> Self {
        let words = scene
            .actors
            .iter()
            .map(|actor| {
                format!("{}: {}, as {}, with {}.", actor.role, actor.program, actor.account, actor.rights)
            })
            .chain(scene.owned.iter().map(|owned| format!("{} belongs to {}.", owned.path, owned.owner)));
        let words = words.collect::<Vec<_>>().join(" ");
        let place = |index: usize| index * (ACTOR_HEIGHT + GAP);
        let owners_at = place(scene.actors.len()) + 8;
        let actors: Vec<_> = scene
            .actors
            .into_iter()
            .enumerate()
            .map(|(index, mut actor)| {
                let label = Label::of(actor.level, &actor.account);
                actor.rights = cut(&actor.rights, LONGEST_RIGHTS);
                // A bold letter of 15 px is less than 10 wide.
                actor.program = cut(&actor.program, label.x.saturating_sub(28) / 10);
                (place(index), label, actor)
            })
            .collect();
        let owned: Vec<_> = scene
            .owned
            .into_iter()
            .enumerate()
            .map(|(index, owned)| {
                (owners_at + 20 + index * LINE, Label::of_owner(owned.level, &owned.owner), owned)
            })
            .collect();
        Self {
            id,
            title: title.to_owned(),
            words,
            height: owners_at + 20 + owned.len() * LINE,
            arrows: (1..actors.len()).map(|index| place(index) - GAP).collect(),
            actors,
            owners_at,
            owned,
        }
    }
}

impl Label {
    fn of(level: Level, text: &str) -> Self {
        let class = match level {
            Level::Root => "root",
            Level::Some => "some",
            Level::None => "none",
        };
        Self::in_class(class, text)
    }

    /// Of an owner: not a question of rights, so in other colours.
    fn of_owner(level: Level, text: &str) -> Self {
        Self::in_class(if level == Level::Root { "kept" } else { "handed" }, text)
    }

    fn in_class(class: &'static str, text: &str) -> Self {
        let text = cut(text, LONGEST_ACCOUNT);
        // A monospaced letter of 12.5 px is 7.5 wide.
        let width = text.chars().count() * 15 / 2 + 22;
        Self { class, x: WIDTH - 12 - width, width, text }
    }
}

fn cut(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    text.chars().take(longest.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_where_it_would_not_fit() {
        let label = Label::of(Level::None, &"x".repeat(200));
        assert!(label.x < WIDTH && label.x + label.width <= WIDTH && label.text.ends_with('…'));
        assert_eq!(cut("short", 5), "short");
    }
}
