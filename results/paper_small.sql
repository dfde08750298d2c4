-- results/paper_small.csv: every seed of every row that was filed, best and last epoch.
--   mimic query --csv - < results/paper_small.sql > results/paper_small.csv
SELECT p.ref, p.row, a.dataset AS data, r.seed, round(a.value, 4) AS acc, round(l.value, 4) AS acc_last
FROM paper_run p JOIN run r ON r.id = p.run AND r.state = 'done' AND r.deleted IS NULL
  JOIN result a ON a.run = r.id AND a.split = 'test' AND a.metric = 'acc'
  JOIN result l ON l.run = r.id AND l.split = 'test' AND l.metric = 'acc_last' AND l.dataset = a.dataset
ORDER BY p.ref, p.row, data, r.seed
