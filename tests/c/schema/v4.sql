-- A results file of version 4 with data in every table, as the sqlite3 shell dumps it: what test_migrate brings up to date.
PRAGMA application_id=0x4d494d43; PRAGMA user_version=4;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE blob( -- Contents by hash: scripts, configurations, sources, pictures
  sha256 BLOB PRIMARY KEY CHECK(length(sha256) = 32),
  bytes INTEGER NOT NULL,
  data BLOB,             -- up to 64 KiB here,
  path TEXT,             -- larger ones in a file: this path below the folder NAME.db.files
  CHECK((data IS NULL) <> (path IS NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO blob VALUES(X'0000000000000000000000000000000000000000000000000000000000000000',3,X'2d2d0a',NULL);
INSERT INTO blob VALUES(X'0100000000000000000000000000000000000000000000000000000000000000',70000,NULL,'01/00');
CREATE TABLE env( -- What runs ran on: machine, processor, versions; equal environments share a row
  id INTEGER PRIMARY KEY,
  sha256 BLOB NOT NULL UNIQUE,
  json TEXT NOT NULL CHECK(json GLOB '{*}')
) STRICT;
INSERT INTO env VALUES(1,X'aa','{"cpu":"a processor","cores":2}');
CREATE TABLE experiment( -- A named collection of runs: m.experiment "name" in a script
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  note TEXT NOT NULL DEFAULT ''
) STRICT;
INSERT INTO experiment VALUES(1,'first','');
INSERT INTO experiment VALUES(2,replace('it''s "second"\n<script>','\n',char(10)),'note');
CREATE TABLE worker( -- A process that executes runs
  id INTEGER PRIMARY KEY,
  host TEXT NOT NULL,
  pid INTEGER NOT NULL,
  boot TEXT NOT NULL,    -- boot id of the host: the pid means something only within it
  gpu TEXT,
  started INTEGER NOT NULL,
  seen INTEGER NOT NULL
) STRICT;
INSERT INTO worker VALUES(1,'host',77,'boot',NULL,1000,2000);
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
INSERT INTO run VALUES(1,'0123456789ab',1,NULL,'pretrain','mae',X'01',0,'done',1,100,5000,X'0000000000000000000000000000000000000000000000000000000000000000',NULL,'c0ffee',1,'{"script":"a.lua","words":[],"cwd":"/"}',1000,1000,5000,NULL,'',NULL);
INSERT INTO run VALUES(2,'0123456789ac',1,1,'finetune','full',X'02',0,'done',2,50,9000,X'0000000000000000000000000000000000000000000000000000000000000000',NULL,NULL,1,NULL,6000,6000,9000,NULL,'best so far',NULL);
INSERT INTO run VALUES(3,'0123456789ad',1,1,'finetune','full',X'02',1,'failed',1,7,9500,NULL,NULL,NULL,NULL,NULL,6000,6000,9500,'boom','',NULL);
INSERT INTO run VALUES(4,'0123456789ae',2,NULL,'finetune','gone',X'03',9223372036854775807,'interrupted',1,0,NULL,NULL,NULL,NULL,NULL,NULL,1,NULL,NULL,NULL,'',99999);
CREATE TABLE param( -- The configuration of a run, one row per leaf: data.train, lr, ...
  run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  key TEXT NOT NULL,
  num REAL,              -- value of numbers and booleans: filters and plots
  txt TEXT NOT NULL,     -- as written: 0.10 stays 0.10
  PRIMARY KEY(run, key)
) STRICT, WITHOUT ROWID;
INSERT INTO param VALUES(2,'big',1.0000000000000000047e+300,'1e300');
INSERT INTO param VALUES(2,'data.train',NULL,'ü''"<&');
INSERT INTO param VALUES(2,'lr',0.10000000000000000555,'0.1');
INSERT INTO param VALUES(4,'on',1.0,'true');
CREATE TABLE tag( -- Labels of runs
  run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  key TEXT NOT NULL,
  value TEXT NOT NULL DEFAULT '',
  PRIMARY KEY(run, key)
) STRICT, WITHOUT ROWID;
INSERT INTO tag VALUES(2,'best','');
INSERT INTO tag VALUES(2,'sources','e3b0');
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
INSERT INTO series VALUES(1,2,'train/loss',4,NULL,4,0.25,3,1e999,2,1,4);
INSERT INTO series VALUES(2,1,'val/loss',0,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL);
CREATE TABLE metric( -- Points of all curves; the key is the order of a curve, so a curve is one range. See view curve
  series INTEGER NOT NULL,
  step INTEGER NOT NULL,
  t INTEGER NOT NULL,    -- when it was logged
  value REAL,            -- NULL: NaN; infinities are themselves
  PRIMARY KEY(series, step)
) STRICT, WITHOUT ROWID;
INSERT INTO metric VALUES(1,1,6100,1.5);
INSERT INTO metric VALUES(1,2,6200,1e999);
INSERT INTO metric VALUES(1,3,6300,0.25);
INSERT INTO metric VALUES(1,4,6400,NULL);
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
INSERT INTO result VALUES(2,'rafdb','test','acc',88.500000000000000003,3068,50);
INSERT INTO result VALUES(2,'rafdb','test','loss',NULL,3068,50);
CREATE TABLE confusion( -- Counts of (true class, predicted class), classes from 0; see view class_score
  run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  dataset TEXT NOT NULL,
  split TEXT NOT NULL,
  truth INTEGER NOT NULL,
  pred INTEGER NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY(run, dataset, split, truth, pred)
) STRICT, WITHOUT ROWID;
INSERT INTO confusion VALUES(2,'rafdb','test',0,0,5);
INSERT INTO confusion VALUES(2,'rafdb','test',0,1,2);
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
INSERT INTO checkpoint VALUES(2,25,'runs/0123456789ac/step-25.safetensors',X'0000000000000000000000000000000000000000000000000000000000000000',1234,80.0,8000,'none');
INSERT INTO checkpoint VALUES(2,50,'runs/0123456789ac/step-50.safetensors',X'0000000000000000000000000000000000000000000000000000000000000000',1234,88.500000000000000003,NULL,'pin');
CREATE TABLE artifact( -- Named contents of a run: sources, pictures, plots
  run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  name TEXT NOT NULL,
  step INTEGER NOT NULL DEFAULT -1,           -- -1: belongs to the run as a whole
  kind TEXT NOT NULL,                         -- source, config, jpeg, svg, ...
  sha256 BLOB NOT NULL REFERENCES blob,
  PRIMARY KEY(run, name, step)
) STRICT, WITHOUT ROWID;
INSERT INTO artifact VALUES(2,'config.json',-1,'config',X'0000000000000000000000000000000000000000000000000000000000000000');
INSERT INTO artifact VALUES(2,'reconstruction',50,'image/jpeg',X'0100000000000000000000000000000000000000000000000000000000000000');
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
INSERT INTO sweep VALUES(1,'sw','tau','grid',NULL,'{"tau":[0.1,0.2]}','test/acc','max',0,NULL,NULL,500,'open','{"experiment":"first","seeds":[0,1],"trials":3}');
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
INSERT INTO trial VALUES(1,1,0,X'02',0,'{"tau":0.1}','done',0,1,3,1,X'ff',NULL,NULL,2,88.500000000000000003,NULL,NULL,NULL);
INSERT INTO trial VALUES(2,1,1,X'03',0,'{"tau":0.2}','waiting',0,0,3,NULL,NULL,NULL,NULL,NULL,NULL,'1-2','[1,null]','nan');
CREATE TABLE event( -- What happened, in order; survives what it speaks of
  id INTEGER PRIMARY KEY,
  t INTEGER NOT NULL,
  run INTEGER, trial INTEGER, worker INTEGER,
  level INTEGER NOT NULL, -- as syslog: 3 error, 4 warning, 6 information
  code TEXT NOT NULL,
  msg TEXT NOT NULL
) STRICT;
INSERT INTO event VALUES(1,6000,2,NULL,1,6,'start','pid 77 on host');
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
INSERT INTO paper VALUES('fig5','LocalMIM','AffectNet','affectnet','test','acc',NULL,43,'inferred','bar without a number; text: above supervised');
INSERT INTO paper VALUES('fig5','LocalMIM','FERPlus','ferplus','test','acc',NULL,42,'inferred','bar without a number; text: not above supervised');
INSERT INTO paper VALUES('fig5','LocalMIM','RAF-DB','rafdb','test','acc',NULL,41,'inferred','bar without a number; text: above supervised');
INSERT INTO paper VALUES('fig5','MAE','AffectNet','affectnet','test','acc',65.049999999999997156,33,'inferred','as Table II row 4');
INSERT INTO paper VALUES('fig5','MAE','FERPlus','ferplus','test','acc',88.420000000000001701,32,'inferred','as Table II row 4');
INSERT INTO paper VALUES('fig5','MAE','RAF-DB','rafdb','test','acc',88.140000000000000568,31,'inferred','as Table II row 4');
INSERT INTO paper VALUES('fig5','MIMIC','AffectNet','affectnet','test','acc',65.349999999999994317,53,'inferred','as Table II row 6');
INSERT INTO paper VALUES('fig5','MIMIC','FERPlus','ferplus','test','acc',89.739999999999994885,52,'inferred','as Table II row 6');
INSERT INTO paper VALUES('fig5','MIMIC','RAF-DB','rafdb','test','acc',89.019999999999996024,51,'inferred','as Table II row 6');
INSERT INTO paper VALUES('fig5','MoCo v3','AffectNet','affectnet','test','acc',NULL,23,'inferred','bar without a number; text: above supervised');
INSERT INTO paper VALUES('fig5','MoCo v3','FERPlus','ferplus','test','acc',NULL,22,'inferred','bar without a number; text: not above supervised');
INSERT INTO paper VALUES('fig5','MoCo v3','RAF-DB','rafdb','test','acc',NULL,21,'inferred','bar without a number; text: above supervised');
INSERT INTO paper VALUES('fig5','supervised','AffectNet','affectnet','test','acc',60.049999999999997156,13,'inferred','as Table II row 1');
INSERT INTO paper VALUES('fig5','supervised','FERPlus','ferplus','test','acc',87.909999999999996591,12,'inferred','as Table II row 1');
INSERT INTO paper VALUES('fig5','supervised','RAF-DB','rafdb','test','acc',87.329999999999998296,11,'inferred','as Table II row 1');
INSERT INTO paper VALUES('mine','row','col','rafdb','test','acc',NULL,0,'printed','');
INSERT INTO paper VALUES('table1','APVIT','AffectNet','affectnet','test','acc',63.920000000000001703,143,'quoted','ResNet-50, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','APVIT','FERPlus','ferplus','test','acc',89.349999999999994313,142,'quoted','ResNet-50, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','APVIT','RAF-DB','rafdb','test','acc',90.530000000000001138,141,'quoted','ResNet-50, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','DACL','AffectNet','affectnet','test','acc',65.20000000000000284,63,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','DACL','FERPlus','ferplus','test','acc',88.390000000000000564,62,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','DACL','RAF-DB','rafdb','test','acc',87.780000000000001133,61,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','DDA','AffectNet','affectnet','test','acc',62.340000000000003409,13,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','DDA','RAF-DB','rafdb','test','acc',86.900000000000005686,11,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','DMUE','FERPlus','ferplus','test','acc',88.64000000000000057,42,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','DMUE','RAF-DB','rafdb','test','acc',88.760000000000005117,41,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','EAC','AffectNet','affectnet','test','acc',65.31999999999999318,103,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','EAC','FERPlus','ferplus','test','acc',89.640000000000000564,102,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','EAC','RAF-DB','rafdb','test','acc',89.989999999999994882,101,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','LW','AffectNet','affectnet','test','acc',64.530000000000001135,123,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','LW','FERPlus','ferplus','test','acc',88.099999999999994313,122,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','LW','RAF-DB','rafdb','test','acc',88.700000000000002843,121,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','MA-Net','AffectNet','affectnet','test','acc',64.530000000000001135,73,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','MA-Net','RAF-DB','rafdb','test','acc',88.400000000000005682,71,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','MIMIC ViT-B/16','AffectNet','affectnet','test','acc',65.349999999999994317,153,'printed','');
INSERT INTO paper VALUES('table1','MIMIC ViT-B/16','FERPlus','ferplus','test','acc',89.739999999999994885,152,'printed','');
INSERT INTO paper VALUES('table1','MIMIC ViT-B/16','RAF-DB','rafdb','test','acc',89.019999999999996024,151,'printed','');
INSERT INTO paper VALUES('table1','MIMIC ViT-L/16','AffectNet','affectnet','test','acc',65.620000000000004549,163,'printed','');
INSERT INTO paper VALUES('table1','MIMIC ViT-L/16','FERPlus','ferplus','test','acc',91.14000000000000057,162,'printed','abstract and introduction say 91.24');
INSERT INTO paper VALUES('table1','MIMIC ViT-L/16','RAF-DB','rafdb','test','acc',91.260000000000005117,161,'printed','');
INSERT INTO paper VALUES('table1','MVT','AffectNet','affectnet','test','acc',64.569999999999993177,83,'quoted','DeIT-S/16, ImageNet-1K');
INSERT INTO paper VALUES('table1','MVT','FERPlus','ferplus','test','acc',89.219999999999998864,82,'quoted','DeIT-S/16, ImageNet-1K');
INSERT INTO paper VALUES('table1','MVT','RAF-DB','rafdb','test','acc',88.62000000000000455,81,'quoted','DeIT-S/16, ImageNet-1K');
INSERT INTO paper VALUES('table1','PICO','AffectNet','affectnet','test','acc',64.349999999999994313,133,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','PICO','FERPlus','ferplus','test','acc',87.930000000000006817,132,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','PICO','RAF-DB','rafdb','test','acc',88.53000000000000114,131,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','RC','AffectNet','affectnet','test','acc',64.870000000000004546,113,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','RC','FERPlus','ferplus','test','acc',88.53000000000000114,112,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','RC','RAF-DB','rafdb','test','acc',88.920000000000001703,111,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','RUL','AffectNet','affectnet','test','acc',61.429999999999999717,53,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','RUL','FERPlus','ferplus','test','acc',88.75,52,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','RUL','RAF-DB','rafdb','test','acc',88.980000000000003977,51,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','SCAN','AffectNet','affectnet','test','acc',65.140000000000000566,33,'quoted','ResNet-50, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','SCAN','FERPlus','ferplus','test','acc',89.420000000000001705,32,'quoted','ResNet-50, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','SCAN','RAF-DB','rafdb','test','acc',89.019999999999996024,31,'quoted','ResNet-50, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','SCN','AffectNet','affectnet','test','acc',63.399999999999998578,23,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','SCN','FERPlus','ferplus','test','acc',88.010000000000005119,22,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','SCN','RAF-DB','rafdb','test','acc',87.030000000000001135,21,'quoted','ResNet-18, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','VTFF','AffectNet','affectnet','test','acc',64.799999999999997159,93,'quoted','ResNet-18+ViT-B/32, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','VTFF','FERPlus','ferplus','test','acc',88.810000000000002273,92,'quoted','ResNet-18+ViT-B/32, MS-Celeb-1M');
INSERT INTO paper VALUES('table1','VTFF','RAF-DB','rafdb','test','acc',88.140000000000000568,91,'quoted','ResNet-18+ViT-B/32, MS-Celeb-1M');
INSERT INTO paper VALUES('table2','MIM, CE','AffectNet','affectnet','test','acc',65.049999999999997156,43,'inferred','');
INSERT INTO paper VALUES('table2','MIM, CE','FERPlus','ferplus','test','acc',88.420000000000001701,42,'inferred','');
INSERT INTO paper VALUES('table2','MIM, CE','RAF-DB','rafdb','test','acc',88.0,0,'printed','');
INSERT INTO paper VALUES('table2','MIM, CE + MSCL','AffectNet','affectnet','test','acc',65.349999999999994317,63,'inferred','');
INSERT INTO paper VALUES('table2','MIM, CE + MSCL','FERPlus','ferplus','test','acc',89.739999999999994885,62,'inferred','');
INSERT INTO paper VALUES('table2','MIM, CE + MSCL','RAF-DB','rafdb','test','acc',89.019999999999996024,61,'inferred','');
INSERT INTO paper VALUES('table2','MIM, CE + SCL','AffectNet','affectnet','test','acc',65.260000000000005114,53,'inferred','');
INSERT INTO paper VALUES('table2','MIM, CE + SCL','FERPlus','ferplus','test','acc',89.430000000000006822,52,'inferred','');
INSERT INTO paper VALUES('table2','MIM, CE + SCL','RAF-DB','rafdb','test','acc',88.870000000000004547,51,'inferred','');
INSERT INTO paper VALUES('table2','supervised, CE','AffectNet','affectnet','test','acc',60.049999999999997156,13,'inferred','');
INSERT INTO paper VALUES('table2','supervised, CE','FERPlus','ferplus','test','acc',87.909999999999996591,12,'inferred','');
INSERT INTO paper VALUES('table2','supervised, CE','RAF-DB','rafdb','test','acc',87.329999999999998296,11,'inferred','');
INSERT INTO paper VALUES('table2','supervised, CE + MSCL','AffectNet','affectnet','test','acc',63.619999999999997442,33,'inferred','');
INSERT INTO paper VALUES('table2','supervised, CE + MSCL','FERPlus','ferplus','test','acc',88.209999999999993743,32,'inferred','');
INSERT INTO paper VALUES('table2','supervised, CE + MSCL','RAF-DB','rafdb','test','acc',87.599999999999994312,31,'inferred','');
INSERT INTO paper VALUES('table2','supervised, CE + SCL','AffectNet','affectnet','test','acc',63.100000000000001421,23,'inferred','');
INSERT INTO paper VALUES('table2','supervised, CE + SCL','FERPlus','ferplus','test','acc',88.060000000000002275,22,'inferred','');
INSERT INTO paper VALUES('table2','supervised, CE + SCL','RAF-DB','rafdb','test','acc',87.519999999999996019,21,'inferred','');
INSERT INTO paper VALUES('table3','dense','AffectNet','affectnet','test','acc',65.349999999999994317,33,'printed','');
INSERT INTO paper VALUES('table3','dense','FERPlus','ferplus','test','acc',89.739999999999994885,32,'printed','');
INSERT INTO paper VALUES('table3','dense','RAF-DB','rafdb','test','acc',89.019999999999996024,31,'printed','');
INSERT INTO paper VALUES('table3','linear','AffectNet','affectnet','test','acc',64.620000000000004545,23,'printed','');
INSERT INTO paper VALUES('table3','linear','FERPlus','ferplus','test','acc',88.430000000000006819,22,'printed','');
INSERT INTO paper VALUES('table3','linear','RAF-DB','rafdb','test','acc',87.180000000000006819,21,'printed','');
INSERT INTO paper VALUES('table3','none','AffectNet','affectnet','test','acc',65.140000000000000566,13,'printed','');
INSERT INTO paper VALUES('table3','none','FERPlus','ferplus','test','acc',88.650000000000005687,12,'printed','');
INSERT INTO paper VALUES('table3','none','RAF-DB','rafdb','test','acc',87.680000000000006821,11,'printed','');
INSERT INTO paper VALUES('table4','class token','AffectNet','affectnet','test','acc',63.670000000000001707,13,'printed','');
INSERT INTO paper VALUES('table4','class token','FERPlus','ferplus','test','acc',88.079999999999998294,12,'printed','');
INSERT INTO paper VALUES('table4','class token','RAF-DB','rafdb','test','acc',86.379999999999995449,11,'printed','');
INSERT INTO paper VALUES('table4','global average pooling','AffectNet','affectnet','test','acc',65.349999999999994317,23,'printed','');
INSERT INTO paper VALUES('table4','global average pooling','FERPlus','ferplus','test','acc',89.739999999999994885,22,'printed','');
INSERT INTO paper VALUES('table4','global average pooling','RAF-DB','rafdb','test','acc',89.019999999999996024,21,'printed','');
INSERT INTO paper VALUES('table5','MAE on ImageNet-1K','AffectNet','affectnet','test','acc',65.349999999999994317,23,'printed','');
INSERT INTO paper VALUES('table5','MAE on ImageNet-1K','FERPlus','ferplus','test','acc',89.739999999999994885,22,'printed','');
INSERT INTO paper VALUES('table5','MAE on ImageNet-1K','RAF-DB','rafdb','test','acc',89.019999999999996024,21,'printed','');
INSERT INTO paper VALUES('table5','MAE on MS-Celeb-1M','AffectNet','affectnet','test','acc',61.61999999999999744,13,'printed','');
INSERT INTO paper VALUES('table5','MAE on MS-Celeb-1M','FERPlus','ferplus','test','acc',87.349999999999994315,12,'printed','');
INSERT INTO paper VALUES('table5','MAE on MS-Celeb-1M','RAF-DB','rafdb','test','acc',86.180000000000006824,11,'printed','');
CREATE TABLE paper_table( -- The tables and figures of the paper: `mimic table REF`
  ref TEXT PRIMARY KEY,
  title TEXT NOT NULL,
  base TEXT,             -- row that the others are compared with; NULL: the first
  note TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;
INSERT INTO paper_table VALUES('fig5','Figure 5: pre-training methods (ViT-B/16)','supervised','bars only: numbers known by equal configuration are inferred from Table II, the rest is not known');
INSERT INTO paper_table VALUES('fig6','Figure 6: sweeps of d, B, alpha and tau',NULL,'no numbers; best by the text: d 128 (RAF-DB) and 512 (FERPlus), B 64, alpha 0.1, tau 0.07');
INSERT INTO paper_table VALUES('fig7','Figure 7: t-SNE of features on the FERPlus validation split',NULL,'pictures only');
INSERT INTO paper_table VALUES('table1','Table I: comparison with other methods, accuracy in percent','MIMIC ViT-B/16','MIMIC rows are printed; the others are quoted by the paper from their authors and are not run here');
INSERT INTO paper_table VALUES('table2','Table II: pre-training and fine-tuning losses (ViT-B/16)','supervised, CE','the check marks are lost in the text: which row is which is inferred from the prose and the gains');
INSERT INTO paper_table VALUES('table3','Table III: projection head (ViT-B/16, MIM, CE + MSCL)','dense','');
INSERT INTO paper_table VALUES('table4','Table IV: pooling (ViT-B/16, MIM, CE + MSCL)','global average pooling','');
INSERT INTO paper_table VALUES('table5','Table V: pre-training data (MAE, ViT-B/16, CE + MSCL)','MAE on ImageNet-1K','');
CREATE TABLE paper_run( -- Which runs answer a row of a table; refs that the paper does not have are tables of our own
  ref TEXT NOT NULL,
  row TEXT NOT NULL,
  run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  PRIMARY KEY(ref, row, run)
) STRICT, WITHOUT ROWID;
INSERT INTO paper_run VALUES('mine','row',2);
INSERT INTO paper_run VALUES('table2','MIM, CE',2);
CREATE INDEX run_config ON run(config_hash, seed, state);
CREATE INDEX run_experiment ON run(experiment);
CREATE INDEX run_parent ON run(parent) WHERE parent IS NOT NULL;
CREATE INDEX param_key ON param(key, num, txt);
CREATE INDEX tag_key ON tag(key, value);
CREATE TRIGGER series_deleted AFTER DELETE ON series BEGIN -- instead of a foreign key on the hot table
  DELETE FROM metric WHERE series = OLD.id;
END
;
CREATE INDEX artifact_blob ON artifact(sha256);
CREATE INDEX trial_waiting ON trial(sweep, priority DESC, number) WHERE state = 'waiting';
CREATE INDEX trial_leased ON trial(lease) WHERE state = 'running';
CREATE INDEX trial_run ON trial(run) WHERE run IS NOT NULL;
CREATE INDEX event_run ON event(run);
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
  WHERE r.deleted IS NULL
;
CREATE VIEW curve AS -- Points of curves by run and name: SELECT step, value FROM curve WHERE run = 3 AND name = 'val/acc'
  SELECT s.run, s.name, m.step, m.value, m.t FROM series s JOIN metric m ON m.series = s.id
;
CREATE VIEW leaderboard AS -- Results of finished runs: ... WHERE dataset = 'rafdb' AND metric = 'acc' ORDER BY value DESC
  SELECT r.id, r.name, r.seed, x.dataset, x.split, x.metric, x.value, x.n, x.step, e.name AS experiment, r.kind, r.uid
  FROM run r JOIN result x ON x.run = r.id JOIN experiment e ON e.id = r.experiment
  WHERE r.state = 'done' AND r.deleted IS NULL
;
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
  SELECT y.config_hash, y.dataset, y.split, y.metric, min(y.name) AS name, count(*) AS runs, count(y.value) AS n,
    avg(y.value) AS mean, sqrt(sum((y.value - y.mean) * (y.value - y.mean)) / nullif(count(y.value) - 1, 0)) AS sd,
    min(y.value) AS lo, max(y.value) AS hi, e.name AS experiment, y.kind
  FROM y JOIN experiment e ON e.id = y.experiment
  GROUP BY y.experiment, y.kind, y.config_hash, y.parent_hash, y.dataset, y.split, y.metric
;
CREATE VIEW class_score AS -- Recall, precision and F1 in percent per class, from the confusion counts
  WITH c AS (
    SELECT run, dataset, split, truth AS class, sum(n) AS n, sum(n) FILTER (WHERE pred = truth) AS hit, 0 AS said
    FROM confusion GROUP BY run, dataset, split, truth
    UNION ALL
    SELECT run, dataset, split, pred, 0, 0, sum(n) FROM confusion GROUP BY run, dataset, split, pred)
  SELECT run, dataset, split, class, sum(n) AS n, 100.0 * sum(hit) / nullif(sum(n), 0) AS recall,
    100.0 * sum(hit) / nullif(sum(said), 0) AS precision, 200.0 * sum(hit) / nullif(sum(n) + sum(said), 0) AS f1
  FROM c GROUP BY run, dataset, split, class
;
CREATE VIEW paper_vs_ours AS -- Every published number beside ours: mean over the runs filed under its row
  -- Of a seed that was run again the newest run counts.
  WITH y AS (
    SELECT p.*, x.value AS our, r.id AS run, row_number() OVER (PARTITION BY p.ref, p.row, p.col, r.seed
      ORDER BY x.run IS NULL, r.id DESC) AS newest
    FROM paper p LEFT JOIN paper_run m ON m.ref = p.ref AND m.row = p.row
      LEFT JOIN run r ON r.id = m.run AND r.state = 'done' AND r.deleted IS NULL
      LEFT JOIN result x ON x.run = r.id AND x.dataset = p.dataset AND x.split = p.split AND x.metric = p.metric),
  z AS (SELECT *, avg(our) OVER (PARTITION BY ref, row, col) AS mean FROM y WHERE newest = 1)
  SELECT ref, row, col, value AS paper, avg(our) AS ours, count(our) AS n, avg(our) - value AS delta,
    sqrt(sum((our - mean) * (our - mean)) / nullif(count(our) - 1, 0)) AS sd, min(our) AS lo, max(our) AS hi,
    dataset, split, metric, pos, mark, note
  FROM z GROUP BY ref, row, col
;
CREATE VIEW sweep_list AS -- Progress of sweeps; best: the best mean over seeds of a point, as in sweep_stat
  SELECT s.id, s.name, s.state, s.sampler, s.metric, s.goal, count(t.id) AS trials,
    count(*) FILTER (WHERE t.state = 'done') AS done, count(*) FILTER (WHERE t.state = 'running') AS running,
    count(*) FILTER (WHERE t.state = 'waiting') AS waiting, count(*) FILTER (WHERE t.state = 'failed') AS failed,
    count(*) FILTER (WHERE t.state = 'pruned') AS pruned,
    (SELECT CASE s.goal WHEN 'max' THEN max(p.mean) ELSE min(p.mean) END FROM sweep_stat p WHERE p.sweep = s.id) AS best,
    s.uid
  FROM sweep s LEFT JOIN trial t ON t.sweep = s.id GROUP BY s.id
;
CREATE VIEW sweep_point AS -- One row per trial and parameter: x is its value, y the trial's result
  SELECT t.sweep, j.key, j.value AS x, t.seed, t.state, t.value AS y, t.number FROM trial t, json_each(t.params) j
;
CREATE VIEW sweep_stat AS -- One row per point of a sweep: its value over seeds; NaN and unfinished seeds are in trials, not in n
  -- The trials of a point are numbered in a row, one for each seed.
  WITH s AS (SELECT id, (SELECT count(*) FROM json_each(spec, '$.seeds')) AS seeds FROM sweep),
  x AS (
    SELECT t.*, CASE WHEN s.seeds > 0 THEN (t.number - 1) / s.seeds ELSE t.config_hash END AS point
    FROM trial t JOIN s ON s.id = t.sweep),
  y AS (SELECT *, avg(value) FILTER (WHERE state = 'done') OVER (PARTITION BY sweep, point) AS mean FROM x)
  SELECT sweep, config_hash, min(params) AS params, count(*) AS trials, count(value) FILTER (WHERE state = 'done') AS n,
    avg(value) FILTER (WHERE state = 'done') AS mean,
    sqrt(sum((value - mean) * (value - mean)) FILTER (WHERE state = 'done')
      / nullif(count(value) FILTER (WHERE state = 'done') - 1, 0)) AS sd,
    min(value) FILTER (WHERE state = 'done') AS lo, max(value) FILTER (WHERE state = 'done') AS hi,
    min(number) AS number
  FROM y GROUP BY sweep, point
;
COMMIT;
