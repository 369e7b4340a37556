//! How a picture was looked at: in which scale, who said so, and whether it is of a kind that the
//! model knows. Words here are stored, sent and exported: they stay as they are for ever.

use reticle_base::words;

words! {
    /// Who said how large objects are, and so in which scale the picture was looked at.
    ScaleFrom {
        /// A person, as `object_diameter_px`.
        Configured = "configured",
        /// The pixel size that came with the picture, with the size of the model's objects.
        Stated = "stated",
        /// Earlier pictures of the session, since this one states no plausible pixel size.
        Session = "session",
        /// This picture alone.
        Picture = "picture",
        /// Nobody: nothing is stated and the picture shows nothing, so it was left as it is.
        Model = "model",
    }
}

words! {
    /// In which way a picture is unlike what its model was trained on.
    Unlike {
        /// Objects are darker than what is around them, and those of the model are brighter.
        DarkOnBright = "dark-on-bright",
        /// Objects are brighter than what is around them, and those of the model are not.
        BrightOnDark = "bright-on-dark",
        /// Lines along rows or columns through the whole picture.
        Stripes = "stripes",
        /// Objects of one size at one distance, as a pattern of the sensor or of a plate makes them.
        FixedPattern = "fixed-pattern",
        /// What was found has no edges: glow, autofluorescence, or far out of focus.
        Soft = "soft",
        /// Beside very bright objects there are many that are too dim to be found.
        DimBesideBright = "dim-beside-bright",
        /// Among the objects there are many specks.
        Debris = "debris",
        /// What was found does not follow what is bright or dark in the picture.
        Strange = "strange",
    }
}

impl Unlike {
    /// The same for a person, to be read after "this picture is unlike what the model was trained
    /// on: ".
    pub fn meaning(self) -> &'static str {
        match self {
            Self::DarkOnBright => "dark cells on bright?",
            Self::BrightOnDark => "bright cells on dark?",
            Self::Stripes => "stripes from the camera?",
            Self::FixedPattern => "a regular pattern, not cells?",
            Self::Soft => "glow without edges, or far out of focus?",
            Self::DimBesideBright => "many dim cells beside very bright ones?",
            Self::Debris => "many specks or debris among the cells?",
            Self::Strange => "another contrast or another kind of sample?",
        }
    }

    /// The whole sentence.
    pub fn sentence(self, model: &str) -> String {
        format!("this picture is unlike what `{model}` was trained on: {}", self.meaning())
    }
}

/// How one picture was looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Who said how large objects are.
    pub scale_from: ScaleFrom,
    /// How many times as long an edge of the picture was made for the model.
    pub scale: f32,
    /// How many times as large as stated the objects look, where that is more than
    /// [`DISAGREES`] times, or less than its inverse.
    pub size_ratio: Option<f32>,
    /// In which way it is unlike what the model knows, where it is.
    pub unlike: Option<Unlike>,
}

/// From this factor on the size of objects in a picture and the stated one disagree.
pub const DISAGREES: f32 = 2.0;

impl Look {
    /// A picture that was left as it is, and of which nothing is to be said.
    pub const PLAIN: Self =
        Self { scale_from: ScaleFrom::Model, scale: 1.0, size_ratio: None, unlike: None };

    /// As it was recorded in words, maybe by a newer program that knows more of them: a doubt of an unknown
    /// sort remains a doubt, and who decided in a way that is not known here is nobody to name.
    pub fn recorded(
        scale_from: &str,
        scale: f32,
        size_ratio: Option<f32>,
        unlike: Option<&str>,
    ) -> Option<Self> {
        let unlike = unlike.map(|word| Unlike::of_word(word).unwrap_or(Unlike::Strange));
        Some(Self { scale_from: ScaleFrom::of_word(scale_from)?, scale, size_ratio, unlike })
    }

    /// What a person should look at, a sentence each.
    pub fn doubts(&self, model: &str) -> Vec<String> {
        let unlike = self.unlike.map(|unlike| unlike.sentence(model));
        unlike.into_iter().chain(self.disagreement()).collect()
    }

    /// That the stated size and the picture disagree, for a person, where they do.
    pub fn disagreement(&self) -> Option<String> {
        let ratio = self.size_ratio?;
        let (times, how) = if ratio > 1.0 { (ratio, "larger") } else { (1.0 / ratio, "smaller") };
        let stated = match self.scale_from {
            ScaleFrom::Configured => "the configured diameter",
            _ => "the stated pixel size",
        };
        Some(format!("objects look {times:.1} times {how} than {stated} says; is it right?"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back_and_json_has_the_same() {
        for from in ScaleFrom::ALL {
            assert_eq!(ScaleFrom::of_word(from.word()), Some(from));
            assert_eq!(serde_json::to_value(from).unwrap(), from.word());
        }
        for unlike in Unlike::ALL {
            assert_eq!(Unlike::of_word(unlike.word()), Some(unlike));
            assert_eq!(serde_json::to_value(unlike).unwrap(), unlike.word());
        }
        assert_eq!(Unlike::of_word("Stripes"), None);
    }

    #[test]
    fn words_of_a_newer_program_stop_nothing() {
        let doubted = Look { unlike: Some(Unlike::Strange), ..Look::PLAIN };
        assert_eq!(Look::recorded("model", 1.0, None, Some("upside-down")), Some(doubted));
        assert_eq!(Look::recorded("model", 1.0, None, None), Some(Look::PLAIN));
        assert_eq!(Look::recorded("horoscope", 1.0, None, None), None);
    }

    #[test]
    fn a_person_reads_by_how_much_sizes_disagree() {
        let look = |ratio| Look { scale_from: ScaleFrom::Stated, size_ratio: ratio, ..Look::PLAIN };
        assert_eq!(look(None).disagreement(), None);
        let said = look(Some(0.25)).disagreement().unwrap();
        assert!(said.contains("4.0 times smaller than the stated pixel size"), "{said}");
        let said = Unlike::DarkOnBright.sentence("nuclei");
        assert_eq!(
            said,
            "this picture is unlike what `nuclei` was trained on: dark cells on bright?"
        );
    }
}
