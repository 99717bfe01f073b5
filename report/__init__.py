"""From a run to the page that shows what it found."""
