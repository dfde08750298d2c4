-- The results file of mimic, version 4. Made by the program on first use; `sqlite3 new.db < results/schema.sql`
-- makes the same. Comments inside the statements are kept by SQLite: `.schema` of any file explains itself.
-- Times are milliseconds since 1970 in UTC. JSON columns are checked by GLOB alone: json_valid() in a schema fails with
-- trusted_schema = OFF in SQLite 3.40.1. Reading needs no program of ours: the views are the documented interface.
PRAGMA application_id = 0x4d494d43; -- "MIMC"

CREATE TABLE blob( -- Contents by hash: scripts, configurations, sources, pictures
  sha256 BLOB PRIMARY KEY CHECK(length(sha256) = 32),
  bytes INTEGER NOT NULL,
  data BLOB,             -- up to 64 KiB here,
  path TEXT,             -- larger ones in a file: this path below the folder NAME.db.files
  CHECK((data IS NULL) <> (path IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE env( -- What runs ran on: machine, processor, versions; equal environments share a row
  id INTEGER PRIMARY KEY,
  sha256 BLOB NOT NULL UNIQUE,
  json TEXT NOT NULL CHECK(json GLOB '{*}')
) STRICT;

CREATE TABLE experiment( -- A named collection of runs: m.experiment "name" in a script
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  note TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE worker( -- A process that executes runs
  id INTEGER PRIMARY KEY,
  host TEXT NOT NULL,
  pid INTEGER NOT NULL,
  boot TEXT NOT NULL,    -- boot id of the host: the pid means something only within it
  gpu TEXT,
  started INTEGER NOT NULL,
  seen INTEGER NOT NULL
) STRICT;

CREATE TABLE run( -- One training or evaluation; identity is configuration, seed, script and parent
  id INTEGER PRIMARY KEY,
  uid TEXT NOT NULL UNIQUE,                   -- the same in every file the run is merged into
  experiment INTEGER NOT NULL REFERENCES experiment,
  parent INTEGER REFERENCES run,              -- the run whose weights it starts from
  kind TEXT NOT NULL,                         -- pretrain, finetune, ...
  name TEXT NOT NULL,
  config_hash BLOB NOT NULL,                  -- SHA-256 of the resolved configuration without the seed
  seed INTEGER NOT NULL,
  state TEXT NOT NULL CHECK(state IN
    ('queued', 'running', 'done', 'failed', 'pruned', 'interrupted', 'lost', 'cancelled')),
  attempt INTEGER NOT NULL DEFAULT 1,         -- how often it was started or continued
  step INTEGER NOT NULL DEFAULT 0,            -- last step that is known to be reached
  heartbeat INTEGER,
  script BLOB REFERENCES blob,                -- text of the script
  diff BLOB REFERENCES blob,                  -- uncommitted changes of the sources
  git TEXT,
  env INTEGER REFERENCES env,
  argv TEXT,
  created INTEGER NOT NULL,
  started INTEGER,
  ended INTEGER,
  error TEXT,                                 -- why it ended otherwise than done
  note TEXT NOT NULL DEFAULT '',
  deleted INTEGER                             -- set: hidden, to be removed by `mimic gc`
) STRICT;
CREATE INDEX run_config ON run(config_hash, seed, state);
CREATE INDEX run_experiment ON run(experiment);
CREATE INDEX run_parent ON run(parent) WHERE parent IS NOT NULL;

CREATE TABLE param( -- The configuration of a run, one row per leaf: data.train, lr, ...
  run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  key TEXT NOT NULL,
  num REAL,              -- value of numbers and booleans: filters and plots
  txt TEXT NOT NULL,     -- as written: 0.10 stays 0.10
  PRIMARY KEY(run, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX param_key ON param(key, num, txt);

CREATE TABLE tag( -- Labels of runs
  run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  key TEXT NOT NULL,
  value TEXT NOT NULL DEFAULT '',
  PRIMARY KEY(run, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX tag_key ON tag(key, value);

CREATE TABLE series( -- A metric of a run with the summary of its curve, kept up with every batch of points
  id INTEGER PRIMARY KEY,
  run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  name TEXT NOT NULL,                         -- train/loss, val/acc, ...
  n INTEGER NOT NULL DEFAULT 0,               -- points, those without a value included
  last REAL, last_step INTEGER,               -- value of the largest step (NULL: NaN)
  lo REAL, lo_step INTEGER,                   -- smallest value and the first step that has it
  hi REAL, hi_step INTEGER,                   -- largest value and the first step that has it
  bad_n INTEGER NOT NULL DEFAULT 0,           -- points that were NaN
  bad_step INTEGER,                           -- the first of them
  UNIQUE(run, name)
) STRICT;

CREATE TABLE metric( -- Points of all curves; the key is the order of a curve, so a curve is one range. See view curve
  series INTEGER NOT NULL,
  step INTEGER NOT NULL,
  t INTEGER NOT NULL,    -- when it was logged
  value REAL,            -- NULL: NaN; infinities are themselves
  PRIMARY KEY(series, step)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER series_deleted AFTER DELETE ON series BEGIN -- instead of a foreign key on the hot table
  DELETE FROM metric WHERE series = OLD.id;
END;

CREATE TABLE result( -- Final numbers: what tables are made of. One value per data set, split and metric
  run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  dataset TEXT NOT NULL,
  split TEXT NOT NULL,   -- train, val, test
  metric TEXT NOT NULL,  -- acc in percent, loss, ...
  value REAL,            -- NULL: NaN
  n INTEGER,             -- samples it was measured on
  step INTEGER,
  PRIMARY KEY(run, dataset, split, metric)
) STRICT, WITHOUT ROWID;

CREATE TABLE confusion( -- Counts of (true class, predicted class), classes from 0; see view class_score
  run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  dataset TEXT NOT NULL,
  split TEXT NOT NULL,
  truth INTEGER NOT NULL,
  pred INTEGER NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY(run, dataset, split, truth, pred)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoint( -- Weight files (safetensors); a row is written after its file is durable
  run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  step INTEGER NOT NULL,
  path TEXT NOT NULL,                         -- relative to the folder of this file
  sha256 BLOB NOT NULL CHECK(length(sha256) = 32),
  bytes INTEGER NOT NULL,
  value REAL,                                 -- what "best" is judged by
  deleted INTEGER,                            -- set: the file is gone
  keep TEXT NOT NULL DEFAULT 'last' CHECK(keep IN ('last', 'best', 'pin', 'none')),
  PRIMARY KEY(run, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE artifact( -- Named contents of a run: sources, pictures, plots
  run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  name TEXT NOT NULL,
  step INTEGER NOT NULL DEFAULT -1,           -- -1: belongs to the run as a whole
  kind TEXT NOT NULL,                         -- source, config, jpeg, svg, ...
  sha256 BLOB NOT NULL REFERENCES blob,
  PRIMARY KEY(run, name, step)
) STRICT, WITHOUT ROWID;
CREATE INDEX artifact_blob ON artifact(sha256);

CREATE TABLE sweep( -- A search over configurations; with its trials it is all that is needed to continue it
  id INTEGER PRIMARY KEY,
  uid TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  sampler TEXT NOT NULL,
  pruner TEXT,
  space TEXT NOT NULL CHECK(space GLOB '[[{]*'),
  metric TEXT NOT NULL,
  goal TEXT NOT NULL CHECK(goal IN ('min', 'max')),
  seed INTEGER NOT NULL,
  script BLOB REFERENCES blob,
  sampler_state BLOB,
  created INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'open' CHECK(state IN ('open', 'paused', 'done', 'cancelled')),
  spec TEXT              -- JSON: trials, seeds, where the script came from: what a worker needs beside the rest
) STRICT;

CREATE TABLE trial( -- One point of a sweep with one seed: the queue that workers take from
  id INTEGER PRIMARY KEY,
  sweep INTEGER NOT NULL REFERENCES sweep,
  number INTEGER NOT NULL,
  config_hash BLOB NOT NULL,
  seed INTEGER NOT NULL,
  params TEXT NOT NULL CHECK(params GLOB '{*}'),
  state TEXT NOT NULL DEFAULT 'waiting' CHECK(state IN
    ('waiting', 'running', 'done', 'failed', 'pruned', 'cancelled')),
  priority INTEGER NOT NULL DEFAULT 0,
  attempt INTEGER NOT NULL DEFAULT 0,
  max_attempt INTEGER NOT NULL DEFAULT 3,
  worker INTEGER REFERENCES worker,
  token BLOB,            -- of the worker that holds it: a late answer with another token is refused
  lease INTEGER,         -- held until then unless renewed
  rung INTEGER,          -- of successive halving
  run INTEGER REFERENCES run,
  value REAL,            -- what the sweep optimises; NULL with state done: NaN
  finished TEXT,         -- trials that were known when this one was drawn: "1-3,5,6@2" (6 paused at rung 2)
  rungs TEXT,            -- JSON list: the metric at each rung of successive halving that was reached
  error TEXT,            -- why it failed or was pruned
  UNIQUE(sweep, number),
  UNIQUE(sweep, config_hash, seed)
) STRICT;
CREATE INDEX trial_waiting ON trial(sweep, priority DESC, number) WHERE state = 'waiting';
CREATE INDEX trial_leased ON trial(lease) WHERE state = 'running';
CREATE INDEX trial_run ON trial(run) WHERE run IS NOT NULL;

CREATE TABLE event( -- What happened, in order; survives what it speaks of
  id INTEGER PRIMARY KEY,
  t INTEGER NOT NULL,
  run INTEGER, trial INTEGER, worker INTEGER,
  level INTEGER NOT NULL, -- as syslog: 3 error, 4 warning, 6 information
  code TEXT NOT NULL,
  msg TEXT NOT NULL
) STRICT;
CREATE INDEX event_run ON event(run);

CREATE TABLE paper( -- Numbers published by the paper: cell (row, col) of the table ref, and what result it is
  ref TEXT NOT NULL,     -- table2, ...: see paper_table
  row TEXT NOT NULL,
  col TEXT NOT NULL,
  dataset TEXT NOT NULL, -- our results with this dataset, split and metric are set beside it
  split TEXT NOT NULL,
  metric TEXT NOT NULL,
  value REAL,            -- NULL: the paper shows it in a figure without numbers
  pos INTEGER NOT NULL DEFAULT 0, -- reading order: 10 x row + column, both from 1
  mark TEXT NOT NULL DEFAULT 'printed' CHECK(mark IN
    ('printed', 'inferred', 'quoted')), -- as printed; row or value inferred from the text; another work's number
  note TEXT NOT NULL DEFAULT '',
  PRIMARY KEY(ref, row, col)
) STRICT, WITHOUT ROWID;

CREATE TABLE paper_table( -- The tables and figures of the paper: `mimic table REF`
  ref TEXT PRIMARY KEY,
  title TEXT NOT NULL,
  base TEXT,             -- row that the others are compared with; NULL: the first
  note TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;

CREATE TABLE paper_run( -- Which runs answer a row of a table; refs that the paper does not have are tables of our own
  ref TEXT NOT NULL,
  row TEXT NOT NULL,
  run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  PRIMARY KEY(ref, row, run)
) STRICT, WITHOUT ROWID;
CREATE INDEX paper_run_run ON paper_run(run);

CREATE VIEW run_list AS -- Runs as a person reads them, with the result that stands for each
  SELECT r.id, r.uid, e.name AS experiment, r.kind, r.name, r.seed, r.state, r.step, r.attempt, p.name AS parent,
    datetime(r.created / 1000, 'unixepoch') AS created,
    round((coalesce(r.ended, r.heartbeat) - r.started) / 60000.0, 1) AS minutes,
    (SELECT x.dataset || ' ' || x.split || ' ' || x.metric || ' ' || coalesce(round(x.value, 4), 'nan') FROM result x
      WHERE x.run = r.id ORDER BY x.metric <> 'acc', x.split <> 'test', x.split <> 'val', x.metric <> 'loss', x.dataset,
      x.metric LIMIT 1) AS result,
    r.error, r.note
  FROM run r JOIN experiment e ON e.id = r.experiment LEFT JOIN run p ON p.id = r.parent
  WHERE r.deleted IS NULL;

CREATE VIEW curve AS -- Points of curves by run and name: SELECT step, value FROM curve WHERE run = 3 AND name = 'val/acc'
  SELECT s.run, s.name, m.step, m.value, m.t FROM series s JOIN metric m ON m.series = s.id;

CREATE VIEW leaderboard AS -- Results of finished runs: ... WHERE dataset = 'rafdb' AND metric = 'acc' ORDER BY value DESC
  SELECT r.id, r.name, r.seed, x.dataset, x.split, x.metric, x.value, x.n, x.step, e.name AS experiment, r.kind, r.uid
  FROM run r JOIN result x ON x.run = r.id JOIN experiment e ON e.id = r.experiment
  WHERE r.state = 'done' AND r.deleted IS NULL;

CREATE VIEW seed_stat AS -- Mean and deviation over seeds of one configuration with equally configured parents
  -- A seed that was run again (changed script, --force) counts once, with its newest run. NaN is in runs, not in n.
  WITH x AS (
    SELECT r.experiment, r.kind, r.config_hash, p.config_hash AS parent_hash, r.name, x.dataset, x.split, x.metric, x.value,
      row_number() OVER (PARTITION BY r.experiment, r.kind, r.config_hash, p.config_hash, x.dataset, x.split, x.metric,
        r.seed ORDER BY r.id DESC) AS newest
    FROM run r JOIN result x ON x.run = r.id LEFT JOIN run p ON p.id = r.parent
    WHERE r.state = 'done' AND r.deleted IS NULL),
  y AS (
    SELECT *, avg(value) OVER (PARTITION BY experiment, kind, config_hash, parent_hash, dataset, split, metric) AS mean
    FROM x WHERE newest = 1)
  SELECT lower(hex(y.config_hash)) AS config_hash, y.dataset, y.split, y.metric, min(y.name) AS name, count(*) AS runs,
    count(y.value) AS n,
    avg(y.value) AS mean, sqrt(sum((y.value - y.mean) * (y.value - y.mean)) / nullif(count(y.value) - 1, 0)) AS sd,
    min(y.value) AS lo, max(y.value) AS hi, e.name AS experiment, y.kind
  FROM y JOIN experiment e ON e.id = y.experiment
  GROUP BY y.experiment, y.kind, y.config_hash, y.parent_hash, y.dataset, y.split, y.metric;

CREATE VIEW class_score AS -- Recall, precision and F1 in percent per class, from the confusion counts
  WITH c AS (
    SELECT run, dataset, split, truth AS class, sum(n) AS n, sum(n) FILTER (WHERE pred = truth) AS hit, 0 AS said
    FROM confusion GROUP BY run, dataset, split, truth
    UNION ALL
    SELECT run, dataset, split, pred, 0, 0, sum(n) FROM confusion GROUP BY run, dataset, split, pred)
  SELECT run, dataset, split, class, sum(n) AS n, 100.0 * sum(hit) / nullif(sum(n), 0) AS recall,
    100.0 * sum(hit) / nullif(sum(said), 0) AS precision, 200.0 * sum(hit) / nullif(sum(n) + sum(said), 0) AS f1
  FROM c GROUP BY run, dataset, split, class;

CREATE VIEW paper_vs_ours AS -- Every published number beside ours: mean over the runs filed under its row
  -- Of several configurations filed there the one with most seeds counts, the newest of equals; of a seed that was run
  -- again the newest run.
  WITH a AS (
    SELECT p.*, x.value AS our, x.run, r.seed, r.config_hash AS hash
    FROM paper p LEFT JOIN paper_run m ON m.ref = p.ref AND m.row = p.row
      LEFT JOIN run r ON r.id = m.run AND r.state = 'done' AND r.deleted IS NULL
      LEFT JOIN result x ON x.run = r.id AND x.dataset = p.dataset AND x.split = p.split AND x.metric = p.metric),
  c AS (
    SELECT ref, row, col, hash, row_number() OVER (PARTITION BY ref, row, col
      ORDER BY count(DISTINCT CASE WHEN run IS NOT NULL THEN seed END) DESC, max(run) DESC) AS place
    FROM a GROUP BY ref, row, col, hash),
  y AS (
    SELECT a.*, row_number() OVER (PARTITION BY a.ref, a.row, a.col, a.seed ORDER BY a.run DESC) AS newest
    FROM a JOIN c ON c.ref = a.ref AND c.row = a.row AND c.col = a.col AND c.hash IS a.hash AND c.place = 1),
  z AS (SELECT *, avg(our) OVER (PARTITION BY ref, row, col) AS mean FROM y WHERE newest = 1)
  SELECT ref, row, col, value AS paper, avg(our) AS ours, count(our) AS n, avg(our) - value AS delta,
    sqrt(sum((our - mean) * (our - mean)) / nullif(count(our) - 1, 0)) AS sd, min(our) AS lo, max(our) AS hi,
    dataset, split, metric, pos, mark, note
  FROM z GROUP BY ref, row, col;

CREATE VIEW sweep_list AS -- Progress of sweeps; best: the best mean over seeds of a point, as in sweep_stat
  SELECT s.id, s.name, s.state, s.sampler, s.metric, s.goal, count(t.id) AS trials,
    count(*) FILTER (WHERE t.state = 'done') AS done, count(*) FILTER (WHERE t.state = 'running') AS running,
    count(*) FILTER (WHERE t.state = 'waiting') AS waiting, count(*) FILTER (WHERE t.state = 'failed') AS failed,
    count(*) FILTER (WHERE t.state = 'pruned') AS pruned,
    (SELECT CASE s.goal WHEN 'max' THEN max(p.mean) ELSE min(p.mean) END FROM sweep_stat p WHERE p.sweep = s.id) AS best,
    s.uid
  FROM sweep s LEFT JOIN trial t ON t.sweep = s.id GROUP BY s.id;

CREATE VIEW sweep_point AS -- One row per trial and parameter: x is its value, y the trial's result
  SELECT t.sweep, j.key, j.value AS x, t.seed, t.state, t.value AS y, t.number FROM trial t, json_each(t.params) j;

CREATE VIEW sweep_stat AS -- One row per point of a sweep: its value over seeds; NaN and unfinished seeds are in trials, not in n
  -- The trials of a point are numbered in a row, one for each seed.
  WITH s AS (SELECT id, (SELECT count(*) FROM json_each(spec, '$.seeds')) AS seeds FROM sweep),
  x AS (
    SELECT t.*, CASE WHEN s.seeds > 0 THEN (t.number - 1) / s.seeds ELSE t.config_hash END AS point
    FROM trial t JOIN s ON s.id = t.sweep),
  y AS (SELECT *, avg(value) FILTER (WHERE state = 'done') OVER (PARTITION BY sweep, point) AS mean FROM x)
  SELECT sweep, lower(hex(config_hash)) AS config_hash, min(params) AS params, count(*) AS trials,
    count(value) FILTER (WHERE state = 'done') AS n,
    avg(value) FILTER (WHERE state = 'done') AS mean,
    sqrt(sum((value - mean) * (value - mean)) FILTER (WHERE state = 'done')
      / nullif(count(value) FILTER (WHERE state = 'done') - 1, 0)) AS sd,
    min(value) FILTER (WHERE state = 'done') AS lo, max(value) FILTER (WHERE state = 'done') AS hi,
    min(number) AS number
  FROM y GROUP BY sweep, point;

PRAGMA user_version = 5;
