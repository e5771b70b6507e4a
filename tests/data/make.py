"""Makes the ROOT files beside it with PyROOT (6.40): what ROOT writes now and then, and uproot reads wrongly or not.

python tests/data/make.py
"""

from pathlib import Path

import ROOT

ROOT.gInterpreter.Declare(r"""
#include <ROOT/RNTupleModel.hxx>
#include <ROOT/RNTupleWriteOptions.hxx>
#include <ROOT/RNTupleWriter.hxx>
using namespace ROOT;

void make_late_array(const char *path) {  // a field that is added after the first of three clusters
  auto model = RNTupleModel::Create();
  auto x = model->MakeField<int>("x");
  auto writer = RNTupleWriter::Recreate(std::move(model), "t", path);
  for (int e = 0; e < 50; e++) { *x = e; writer->Fill(); }
  writer->CommitCluster();
  auto updater = writer->CreateModelUpdater();
  updater->BeginUpdate();
  auto a = updater->MakeField<std::array<float, 3>>("a");
  updater->CommitUpdate();
  for (int e = 50; e < 150; e++) {
    *x = e; *a = {1.f * e, 2.f, 3.f}; writer->Fill();
    if (e % 50 == 49) writer->CommitCluster();
  }
}

void make_variant(const char *path) {  // three clusters
  auto model = RNTupleModel::Create();
  auto v = model->MakeField<std::variant<int, std::string>>("v");
  auto writer = RNTupleWriter::Recreate(std::move(model), "t", path);
  for (int e = 0; e < 30; e++) {
    if (e % 2) *v = e; else *v = std::string(1, 'a' + e % 26);
    writer->Fill();
    if (e % 10 == 9) writer->CommitCluster();
  }
}

void make_several_ways(const char *path) {  // fields that every other cluster stores in another way
  using Type = ENTupleColumnType;
  auto model = RNTupleModel::Create();
  auto add = [&](const char *name, const char *type, RFieldBase::ColumnRepresentation_t one,
                 RFieldBase::ColumnRepresentation_t other) {
    auto field = RFieldBase::Create(name, type).Unwrap();
    field->SetColumnRepresentatives({one, other});
    model->AddField(std::move(field));
  };
  add("px", "float", {Type::kReal32}, {Type::kReal16});
  add("s", "std::string", {Type::kIndex32, Type::kChar}, {Type::kSplitIndex64, Type::kChar});
  add("v", "std::vector<float>", {Type::kIndex32}, {Type::kSplitIndex64});
  auto writer = RNTupleWriter::Recreate(std::move(model), "t", path);
  auto &entry = writer->GetModel().GetDefaultEntry();
  auto px = entry.GetPtr<float>("px");
  auto s = entry.GetPtr<std::string>("s");
  auto v = entry.GetPtr<std::vector<float>>("v");
  for (int e = 0; e < 90; e++) {
    *px = e; *s = std::string(e % 4, 'a' + e % 20); v->assign(e % 3, e); writer->Fill();
    if (e % 30 != 29) continue;
    writer->CommitCluster();
    for (auto name : {"px", "s", "v"}) {
      auto &field = const_cast<RFieldBase &>(writer->GetModel().GetConstField(name));
      ROOT::Internal::RFieldRepresentationModifier::SetPrimaryColumnRepresentation(field, e / 30 % 2 == 0);
    }
  }
}

void make_empty_text(const char *path) {  // nothing at all is stored for an empty C string
  TFile file(path, "RECREATE");
  TTree t("t", "t");
  t.SetAutoFlush(10);
  char text[300];
  int e;
  t.Branch("text", text, "text/C");
  t.Branch("e", &e);
  const char *words[] = {"muon", "", "electron", "", "", "tau", "jet"};
  for (e = 0; e < 30; e++) { strcpy(text, words[e % 7]); t.Fill(); }
  t.Write();
}

void make_computed_places(const char *path) {  // places of lists are left out where lengths tell them
  TFile file(path, "RECREATE");
  TTree t("t", "t");
  ROOT::TIOFeatures features;
  features.Set("kGenerateOffsetMap");
  t.SetIOFeatures(features);
  t.SetAutoFlush(10);
  int n;
  float a[9];
  char text[9] = "ab";
  t.Branch("n", &n);
  t.Branch("a", a, "a[n]/F");
  t.Branch("text", text, "text/C");
  for (int e = 0; e < 60; e++) { n = e % 4; for (int k = 0; k < n; k++) a[k] = e; t.Fill(); }
  t.Write();
}

void make_latin1(const char *path) {  // names and titles in the encoding of old
  TFile file(path, "RECREATE");
  TTree t("t", "title \xb5m caf\xe9");
  float x;
  t.Branch("pt_\xb5", &x, "pt/F")->SetTitle("momentum [\xb5m]");
  for (int e = 0; e < 9; e++) { x = e; t.Fill(); }
  t.Write();
}

void make_short_branch(const char *path) {  // one branch was filled half as often as its tree
  TFile file(path, "RECREATE");
  TTree t("t", "t");
  float x;
  int y;
  t.Branch("x", &x);
  for (int e = 0; e < 100; e++) { x = e; t.Fill(); }
  auto branch = t.Branch("y", &y);
  for (int e = 0; e < 50; e++) { y = e; branch->Fill(); }
  t.Write();
}
""")

if __name__ == "__main__":
    for name in (
        "late_array",
        "variant",
        "several_ways",
        "empty_text",
        "computed_places",
        "latin1",
        "short_branch",
    ):
        getattr(ROOT, f"make_{name}")(str(Path(__file__).with_name(f"{name}.root")))
