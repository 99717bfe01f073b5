// The last script: the views that need the others may begin.
"use strict";
videoSae.started();
